// What this page says in the reader's language: the server hands it over with the page.

const words = JSON.parse(document.body.dataset.words);

const shown = (value) => (typeof value === "number" ? value.toLocaleString("en") : String(value ?? ""));

export function say(key, values = {}) {
  const single = values.count === 1 ? words[`${key}.one`] : undefined;
  return (single ?? words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

// For those who listen instead of looking.
export function told(sentence) {
  const place = document.getElementById("told");
  place.textContent = "";
  requestAnimationFrame(() => {
    place.textContent = sentence;
  });
}
