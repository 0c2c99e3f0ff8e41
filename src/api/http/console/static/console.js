// Shows times in the zone of who looks; the time in UTC stays on hover. Without it, UTC is shown.
"use strict";

function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-ago])")) {
    const at = new Date(element.dateTime);
    if (!Number.isNaN(at.getTime())) {
      element.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    }
  }
}

// A form that was sent is not sent again by a second click.
function sendOnce(event) {
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  if (form.method === "post") {
    form.dataset.sent = "yes";
  }
}

// Parts that update themselves can be paused, keep the focus, and say when they are out of date.
const LIVE = "[hx-trigger^='every']";
const FOCUSABLE = "a, button, input, select, textarea, summary, [tabindex]";
let isPaused = false;
let kept = null;

function say(text) {
  const state = document.getElementById("updates-state");
  if (state.textContent !== text) {
    state.textContent = text;
  }
  state.className = text && !isPaused ? "bad" : "";
}

// What is marked with data-say is read out once it changes; the rest changes in silence.
let said = "";

function marked() {
  const parts = [...document.querySelectorAll("[data-say]")];
  return parts.map((each) => each.textContent.replace(/\s+/g, " ").trim()).join(" ");
}

function readOut() {
  if (marked() !== said) {
    said = marked();
    document.getElementById("said").textContent = said;
  }
}

function showUpdates() {
  const button = document.getElementById("pause");
  button.closest("p").hidden = !document.querySelector(LIVE);
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    say(isPaused ? "Paused: what is shown here does not change." : "");
  });
}

function nameOf(element) {
  return element.tagName + (element.id || element.getAttribute("href") || element.ariaLabel || element.textContent);
}

function keep(event) {
  const target = event.detail.target;
  const focused = document.activeElement;
  kept = {
    focused: target.contains(focused) ? nameOf(focused) : null,
    scrolled: [...target.querySelectorAll(".scroll")].map((each) => each.scrollLeft),
  };
}

function restore(part) {
  if (kept === null) {
    return;
  }
  [...part.querySelectorAll(".scroll")].forEach((each, number) => {
    each.scrollLeft = kept.scrolled[number] || 0;
  });
  const again = kept.focused && [...part.querySelectorAll(FOCUSABLE)].find((each) => nameOf(each) === kept.focused);
  if (again) {
    again.focus({ preventScroll: true });
  }
  kept = null;
}

document.addEventListener("DOMContentLoaded", () => {
  localTimes(document);
  said = marked();
  showUpdates();
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (isPaused && event.detail.elt.matches(LIVE)) {
    event.preventDefault();
  }
});
document.addEventListener("htmx:beforeSwap", keep);
document.addEventListener("htmx:afterSwap", (event) => {
  localTimes(event.target);
  readOut();
  restore(event.target);
  if (!isPaused) {
    say("");
  }
});
document.addEventListener("htmx:responseError", (event) => {
  say(`Not up to date: the console answers ${event.detail.xhr.status}.`);
});
for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, () => say("Not up to date: the console does not answer."));
}
document.addEventListener("submit", sendOnce);
window.addEventListener("pageshow", () => {
  for (const form of document.forms) {
    delete form.dataset.sent;
  }
});
