// Shows what the server says: each message is the HTML of one region, which the server has made safe.
"use strict";

const shown = new Map(); // by region: the HTML that is there now
const choices = new Map(); // by data-key: whether somebody has unfolded it
const lost = document.getElementById("lost");

function show(name, html) {
  const region = document.querySelector(`[data-region="${CSS.escape(name)}"]`);
  if (!region || shown.get(name) === html) return;
  const unfolded = new Set([...region.querySelectorAll("details[open]")].map((each) => each.dataset.key));
  const focused = region.contains(document.activeElement) ? marker(document.activeElement) : "";
  region.innerHTML = html;
  shown.set(name, html);
  for (const inner of region.querySelectorAll("[data-region]")) shown.delete(inner.dataset.region);
  for (const each of region.querySelectorAll("details")) {
    each.open = choices.get(each.dataset.key) ?? (each.open || unfolded.has(each.dataset.key));
  }
  if (focused) (region.querySelector(focused) ?? document.querySelector("main h2")).focus({ preventScroll: true });
  if (name === "head") document.title = `${region.querySelector(".tally b")?.textContent ?? ""} · Bookshop workbook`;
}

// How to find the same element again after its region was drawn anew.
function marker(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const key = element.parentElement?.dataset.key;
  return key ? `[data-key="${CSS.escape(key)}"] > summary` : "";
}

document.addEventListener("click", (event) => {
  const summary = event.target.closest("summary");
  const folded = summary?.parentElement;
  if (folded?.dataset.key) choices.set(folded.dataset.key, !folded.open);
  const button = event.target.closest("[data-do]");
  if (button) fetch(`do/${button.dataset.do}`, { method: "POST" }).catch(() => {});
});

for (const each of document.querySelectorAll("[data-wide]")) {
  each.open = matchMedia(`(min-width: ${each.dataset.wide})`).matches;
}

const events = new EventSource("events");
events.onmessage = (message) => {
  const { name, html } = JSON.parse(message.data);
  show(name, html);
};
events.onopen = () => {
  lost.hidden = true;
};
events.onerror = () => {
  lost.textContent = `The command has ended, so that nothing here changes any more. Start it again: ${document.body.dataset.command}`;
  lost.hidden = false;
};
