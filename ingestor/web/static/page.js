// The page comes from the server whole. This moves between its views without loading it anew, keeps state and lists
// fresh while things happen, and carries keys. What documents say reaches the page as text alone, or escaped by the server.

import { follow } from "./events.js";
import { show as showPicture } from "./picture.js";
import { say, told } from "./words.js";

const SAID_MS = 6000; // for so long stands what came of a press of a button
const REFRESH_MS = 1000; // at most one look at the server's state in this time, whatever happens
const IDLE_MS = 10_000; // ages of changes grow while nothing happens

const byId = (id) => document.getElementById(id);
const main = byId("main");
let asked = 0;

async function fetched(url) {
  const answer = await fetch(url, { headers: { accept: "text/html" } });
  if (answer.redirected && new URL(answer.url).pathname === "/login") {
    location.assign(answer.url);
  }
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// A part that is equal stays, so that nothing is read out or flickers; one that is replaced keeps the focus by its id.
function replacePart(page, name) {
  const [fresh, old] = [page, document].map((place) => place.querySelector(`[data-part="${name}"]`));
  if (!fresh || !old || fresh.isEqualNode(old)) {
    return;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  old.replaceWith(document.adoptNode(fresh));
  if (focused) {
    (byId(focused) ?? main).focus({ preventScroll: true });
  }
}

const looked = () => location.pathname + location.search;
let shownAt = looked();

async function visit(url, { isNew }) {
  const turn = ++asked;
  const box = byId("q");
  const began = box?.value;
  main.setAttribute("aria-busy", "true");
  let page;
  try {
    page = await fetched(url);
  } catch {
    if (turn === asked) {
      main.removeAttribute("aria-busy");
      away(true);
    }
    return;
  }
  if (turn !== asked) {
    return;
  }
  const fresh = page.getElementById("main");
  if (!fresh) {
    location.assign(url);
    return;
  }
  if (isNew) {
    history.pushState(null, "", url);
  }
  shownAt = looked();
  document.title = page.title;
  const focused = document.activeElement;
  const tab = focused?.closest(".tabs a")?.getAttribute("href");
  const isLost = main.contains(focused);
  const isTypedOn = focused === box && box.value !== began && main.dataset.view === fresh.dataset.view;
  main.dataset.view = fresh.dataset.view;
  main.removeAttribute("aria-busy");
  main.replaceChildren(...[...fresh.childNodes].map((node) => document.adoptNode(node)));
  document.querySelector(".tabs").replaceWith(document.adoptNode(page.querySelector(".tabs")));
  for (const id of ["language", "theme"]) {
    byId(id).href = page.getElementById(id).href;
  }
  replacePart(page, "state");
  if (isTypedOn) {
    typeOn(box);
  } else if (isLost) {
    main.focus({ preventScroll: true });
  } else if (tab) {
    [...document.querySelectorAll(".tabs a")].find((each) => each.getAttribute("href") === tab).focus();
  }
  arrived();
  if (isNew) {
    window.scrollTo(0, 0);
  }
}

// Somebody who has gone on typing while the answer was under way does so in the box that came with it.
function typeOn(box) {
  const fresh = byId("q");
  fresh.value = box.value;
  fresh.focus({ preventScroll: true });
  fresh.setSelectionRange(box.selectionStart, box.selectionEnd);
}

function arrived() {
  const result = main.querySelector("[data-told]") ?? main.querySelector("h1");
  if (result) {
    told(result.textContent);
  }
  if (main.dataset.view === "map") {
    showPicture(visitNew);
  }
}

const visitNew = (url) => visit(url, { isNew: true });

// Parts

let hiding = 0;
let refreshing = null;
let isWanted = false;

async function refresh() {
  if (refreshing) {
    isWanted = true;
    return;
  }
  refreshing = setTimeout(() => {
    refreshing = null;
    if (isWanted) {
      isWanted = false;
      refresh();
    }
  }, REFRESH_MS);
  const views = { documents: ["documents", "total"], problems: ["problems"] };
  const turn = asked;
  try {
    const page = await fetched(`/parts${location.search}`);
    if (!page.querySelector("[data-part]")) {
      throw new Error("no parts");
    }
    away(false);
    replacePart(page, "state");
    replacePart(page, "count");
    if (turn === asked) {
      (views[main.dataset.view] ?? []).forEach((name) => replacePart(page, name));
    }
  } catch {
    away(true);
  }
}

function away(isAway) {
  const notice = byId("away");
  if (notice.hidden === !isAway) {
    return;
  }
  notice.hidden = !isAway;
  if (!isAway) {
    told(say("back"));
  }
}

// For those who look, and for those who listen.
function showSaid(sentence, isBad) {
  const place = byId("said");
  told(sentence);
  place.textContent = sentence;
  place.classList.toggle("is-bad", isBad);
  place.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => {
    place.hidden = true;
  }, SAID_MS);
}

// A button that is disabled would lose the focus.
async function retry(button) {
  const path = button.dataset.retry;
  button.setAttribute("aria-disabled", "true");
  try {
    const answer = await fetch("/api/retry", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ paths: path ? [path] : [] }),
    });
    const said = await answer.json();
    const sentence = answer.ok ? say("problems.retried", { count: said.queued.length }) : `${said.error} ${said.remedy ?? ""}`;
    showSaid(sentence, !answer.ok);
  } catch {
    away(true);
  }
  button.removeAttribute("aria-disabled");
  refresh();
}

// Hands

function urlOf(form) {
  const chosen = [...new FormData(form)].filter(([, value]) => value !== "");
  const query = new URLSearchParams(chosen).toString();
  return `${new URL(form.action).pathname}${query ? `?${query}` : ""}`;
}

document.addEventListener("submit", (event) => {
  if (event.target.method === "get" && !("native" in event.target.dataset)) {
    event.preventDefault();
    visitNew(urlOf(event.target));
  }
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-retry]");
  if (button) {
    if (!button.hasAttribute("aria-disabled")) {
      retry(button);
    }
    return;
  }
  const link = event.target.closest("a[href]");
  const isPlain = !event.defaultPrevented && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
  const isOurs = link?.origin === location.origin && link.pathname === "/" && !link.hash && !("native" in link.dataset);
  if (isOurs && isPlain) {
    event.preventDefault();
    visitNew(link.pathname + link.search);
  }
});

byId("theme").addEventListener("click", (event) => {
  event.preventDefault();
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  document.cookie = `ingestor_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  document.dispatchEvent(new Event("themed"));
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themed")));

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select");
  if (event.key === "/" && !isTyping && !event.metaKey && !event.ctrlKey && !event.altKey) {
    event.preventDefault();
    const box = byId("q");
    if (box) {
      box.focus();
      box.select();
    } else {
      visitNew("/").then(() => byId("q")?.focus());
    }
  }
});

// A jump within what is shown, as to the content, is no other address; to draw it anew would take the focus away.
window.addEventListener("popstate", () => looked() === shownAt || visit(location.href, { isNew: false }));
document.addEventListener("visibilitychange", () => document.hidden || refresh());

// A choice of language that is a part of the address would be a part of every address that is shared.
const address = new URL(location.href);
if (address.searchParams.has("lang") || address.searchParams.has("theme")) {
  address.searchParams.delete("lang");
  address.searchParams.delete("theme");
  history.replaceState(null, "", address.pathname + address.search);
  shownAt = looked();
}

follow(refresh);
setInterval(() => document.hidden || refresh(), IDLE_MS);
arrived();
