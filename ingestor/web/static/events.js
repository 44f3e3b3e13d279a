// Activity: what the daemon's log tells, as it happens. The stream is opened again whatever has ended it.

import { say } from "./words.js";

const MOST_LINES = 120;
const AGAIN_MS = 2000;

const list = document.getElementById("activity");

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// What is said of an entry, and what more there is to say; the path that it is about is put between.
const about = {
  "document.synced": (entry) => [
    say(`activity.${entry.outcome}`),
    entry.embedded || entry.reused ? say("activity.synced", entry) : "",
  ],
  "document.problem": (entry) => [say("activity.problem"), entry.reason],
  "service.away": (entry) => [named(entry.event), entry.reason],
  "service.back": (entry) => [named(entry.event), entry.service],
  "folder.reconciled": (entry) => [say("activity.compared"), say("activity.compared_more", entry)],
  "daemon.ready": (entry) => [say("activity.ready"), entry.watching],
  "daemon.started": (entry) => [say("activity.started"), entry.folder],
  "daemon.stopping": () => [say("activity.stopping"), ""],
  // What is done by the clock has no reason that is worth a line.
  "watch.rescan": (entry) => [named(entry.event), entry.reason === "rescan_seconds" ? "" : entry.reason],
  "embedding.down": (entry) => [say("activity.down"), entry.reason],
  "embedding.back": () => [say("activity.up"), ""],
};

// What is told in words; of anything else its name in the log is shown.
function named(event) {
  const said = say(`event.${event}`);
  return said === `event.${event}` ? event : said;
}

const moods = { warning: "is-warn", error: "is-bad", critical: "is-bad" };

function line(what, more, { when = "", mood = "", source = "", path = "" }) {
  const row = element("li", mood, "");
  row.append(element("time", "", when), element("span", "what", source || path ? `${what} ` : what));
  row.lastChild.title = [what, source, path].filter(Boolean).join(" ");
  if (source) {
    row.lastChild.append(element("span", "tag", source), " ");
  }
  if (path) {
    const link = element("a", "", path);
    link.href = `/?${new URLSearchParams({ view: "documents", text: path })}`;
    row.lastChild.append(link);
  }
  if (more) {
    row.append(element("small", "", more));
  }
  return row;
}

function add(row) {
  document.getElementById("quiet").hidden = true;
  list.prepend(row);
  while (list.children.length > MOST_LINES) {
    list.lastChild.remove();
  }
}

function shown(entry) {
  const [what, more] = about[entry.event]?.(entry) ?? [named(entry.event), entry.reason ?? ""];
  const moment = new Date(entry.timestamp);
  const when = Number.isNaN(moment.valueOf()) ? "" : moment.toLocaleTimeString(undefined, { hour12: false });
  const row = line(what, more, { when, mood: moods[entry.level], source: entry.source, path: entry.path });
  if (Date.now() - moment < AGAIN_MS) {
    row.classList.add("is-new");
  }
  return row;
}

// `happened` is called after each entry, and when the stream begins or ends.
export function follow(happened) {
  let [run, number] = ["", 0];
  const open = () => {
    const stream = new EventSource(`/api/events?lang=${document.documentElement.lang.slice(0, 2)}`);
    stream.onopen = happened;
    stream.onerror = () => {
      happened();
      if (stream.readyState === EventSource.CLOSED) {
        setTimeout(open, AGAIN_MS);
      }
    };
    stream.onmessage = (message) => {
      // A stream that was opened anew tells again what was told; a daemon that was started again counts anew.
      const [itsRun, its] = message.lastEventId.split("-");
      if (itsRun === run && Number(its) <= number) {
        return;
      }
      [run, number] = [itsRun, Number(its)];
      add(shown(JSON.parse(message.data)));
      happened();
    };
    stream.addEventListener("lost", (message) => {
      const { lost } = JSON.parse(message.data);
      add(line(say("activity.lost", { count: lost }), "", { mood: "is-warn" }));
    });
  };
  open();
}
