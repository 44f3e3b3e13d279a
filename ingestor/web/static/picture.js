// The picture of the collection: a dot for each record, near those that speak of alike things, coloured by folder.

import { say } from "./words.js";

const HUES = 8;
const MARGIN_PX = 22;
const REACH_PX = 16;
const MOST_STRETCH = 2; // a picture that is flat fills the frame all the same
const FEW_DOTS = 400;
const QUESTION_CHARACTERS = 240;
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

function swatch(hue) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 10 10");
  svg.setAttribute("class", `hue-${hue}`);
  svg.setAttribute("aria-hidden", "true");
  const circle = document.createElementNS(SVG, "circle");
  Object.entries({ cx: 5, cy: 5, r: 5, fill: "currentColor" }).forEach(([name, value]) => circle.setAttribute(name, value));
  svg.append(circle);
  return svg;
}

function legend(folders) {
  const named = folders.slice(0, HUES).map((folder, place) => [place, folder || say("map.root")]);
  const entries = folders.length > HUES ? [...named, ["other", say("map.other")]] : named;
  byId("legend").replaceChildren(
    ...entries.map(([hue, name]) => {
      const entry = document.createElement("li");
      entry.append(swatch(hue), name);
      return entry;
    }),
  );
}

// Draws, and answers which dot lies where. Colours are read from the legend: only there are they real ones.
class Canvas {
  constructor(canvas, dots) {
    this.canvas = canvas;
    this.dots = dots;
    this.chosen = -1;
  }

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.pen = this.canvas.getContext("2d");
    this.pen.scale(ratio, ratio);
    const [wide, high] = [clientWidth, clientHeight].map((length) => Math.max(1, length / 2 - MARGIN_PX));
    const [across, up] = ["x", "y"].map((axis) => Math.min(MOST_STRETCH, 1 / Math.max(...this.dots.map((dot) => Math.abs(dot[axis])))));
    this.places = this.dots.map((dot) => [
      clientWidth / 2 + dot.x * across * wide,
      clientHeight / 2 - dot.y * up * high,
    ]);
    this.draw();
  }

  draw() {
    const colours = [...byId("legend").querySelectorAll("svg")].map((svg) => getComputedStyle(svg).color);
    const radius = this.dots.length < FEW_DOTS ? 4.5 : 3;
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.pen.globalAlpha = 0.8;
    this.dots.forEach((dot, place) => {
      this.pen.fillStyle = colours[Math.min(dot.folder, colours.length - 1)];
      this.disc(place, radius);
      this.pen.fill();
    });
    this.pen.globalAlpha = 1;
    if (this.chosen >= 0) {
      const dot = this.dots[this.chosen];
      this.pen.fillStyle = colours[Math.min(dot.folder, colours.length - 1)];
      this.pen.strokeStyle = getComputedStyle(this.canvas).color;
      this.pen.lineWidth = 2;
      this.disc(this.chosen, radius + 3);
      this.pen.fill();
      this.pen.stroke();
    }
  }

  disc(place, radius) {
    this.pen.beginPath();
    this.pen.arc(...this.places[place], radius, 0, 2 * Math.PI);
  }

  at(x, y) {
    let [best, nearest] = [-1, REACH_PX ** 2];
    this.places.forEach(([left, top], place) => {
      const squared = (left - x) ** 2 + (top - y) ** 2;
      if (squared < nearest) {
        [best, nearest] = [place, squared];
      }
    });
    return best;
  }

  // The nearest dot in a direction: one that lies aside counts as farther. From no dot, the one nearest to the middle.
  towards([right, down]) {
    const from = this.chosen;
    const [x, y] = from >= 0 ? this.places[from] : [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    let [best, nearest] = [from, Infinity];
    this.places.forEach(([left, top], place) => {
      const [across, along] = [(left - x) * down - (top - y) * right, (left - x) * right + (top - y) * down];
      const cost = from < 0 ? (left - x) ** 2 + (top - y) ** 2 : along + 2 * Math.abs(across);
      if (place !== from && (from < 0 || along > 0) && cost < nearest) {
        [best, nearest] = [place, cost];
      }
    });
    return best;
  }
}

function place(dot) {
  return dot.start_line ? `${dot.source}:${dot.start_line}-${dot.end_line}` : dot.source;
}

function choose(picture, index, isWalk) {
  const note = byId("point");
  if (picture.chosen !== index) {
    picture.chosen = index;
    picture.draw();
  }
  note.hidden = index < 0;
  if (index < 0) {
    return;
  }
  const dot = picture.dots[index];
  const [path, text] = [document.createElement("p"), document.createElement("p")];
  path.className = "where path";
  path.textContent = place(dot);
  text.className = "excerpt";
  text.textContent = dot.text;
  note.replaceChildren(path, text);
  const [x, y] = picture.places[index];
  const { clientWidth, clientHeight } = picture.canvas;
  note.style.left = `${Math.max(8, Math.min(x + 14, clientWidth - note.offsetWidth - 8))}px`;
  note.style.top = `${y + 14 + note.offsetHeight < clientHeight ? y + 14 : Math.max(8, y - 14 - note.offsetHeight)}px`;
  if (isWalk) {
    byId("walked").textContent = `${place(dot)} ${dot.text}`;
  }
}

function question(dot, collection) {
  const q = [...dot.text].slice(0, QUESTION_CHARACTERS).join("");
  return `/?${new URLSearchParams(collection ? { q, collection } : { q })}`;
}

function handle(picture, visit) {
  const { canvas } = picture;
  const ask = (index) => visit(question(picture.dots[index], byId("picture").dataset.collection));
  const under = (event) => picture.at(event.offsetX, event.offsetY);
  canvas.addEventListener("pointermove", (event) => choose(picture, under(event), false));
  canvas.addEventListener("pointerleave", () => choose(picture, -1, false));
  canvas.addEventListener("blur", () => choose(picture, -1, false));
  canvas.addEventListener("click", (event) => {
    const index = under(event);
    // A finger points first, and asks with its second touch.
    if (index >= 0 && (event.pointerType === "mouse" || index === canvas.touched)) {
      ask(index);
    } else {
      choose(picture, index, false);
    }
    canvas.touched = index;
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key in TURNS) {
      event.preventDefault();
      choose(picture, picture.towards(TURNS[event.key]), true);
    } else if (event.key === "Enter" && picture.chosen >= 0) {
      ask(picture.chosen);
    } else if (event.key === "Escape") {
      choose(picture, -1, false);
    }
  });
  const watch = new ResizeObserver(() => {
    if (canvas.isConnected) {
      picture.fit();
    } else {
      watch.disconnect();
      document.removeEventListener("themed", themed);
    }
  });
  const themed = () => picture.draw();
  watch.observe(canvas);
  document.addEventListener("themed", themed);
}

export async function show(visit) {
  const frame = byId("picture");
  const instead = byId("unpictured");
  const tell = (sentence) => {
    instead.firstChild.textContent = sentence;
  };
  try {
    const answer = await fetch(frame.dataset.url);
    const said = await answer.json();
    if (!answer.ok) {
      tell(say("map.fault", { reason: [said.error, said.remedy].filter(Boolean).join(" - ") }));
    } else if (!said.points.length) {
      tell(say("map.none"));
    } else if (frame.isConnected) {
      instead.hidden = true;
      frame.hidden = false;
      const isAll = said.points.length === said.records;
      byId("sampled").textContent = say(isAll ? "map.all" : "map.sample", { count: said.points.length, total: said.records });
      legend(said.folders);
      const picture = new Canvas(frame.querySelector("canvas"), said.points);
      picture.fit();
      handle(picture, visit);
    }
  } catch (error) {
    if (frame.isConnected) {
      tell(say("map.fault", { reason: String(error) }));
    }
  }
}
