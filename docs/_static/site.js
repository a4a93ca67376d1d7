// A button at each block of code that copies it, without the prompts of a shell or of Python.
// Our own, as the extension for it has had no release since April 2023.
"use strict";

const PROMPT = /^(\$|>>>|\.\.\.)( |$)/;
const SHOWN_MS = 1500;

function withoutPrompts(text) {
  const lines = text.replace(/\n+$/, "").split("\n");
  const typed = lines.filter((line) => PROMPT.test(line));
  return (typed.length ? typed.map((line) => line.replace(PROMPT, "")) : lines).join("\n");
}

function makeButton(block) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  const say = (word) => { button.textContent = word; };
  say("Copy");
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(withoutPrompts(block.querySelector("pre").textContent));
      say("Copied");
    } catch {
      say("Not copied");
    }
    setTimeout(say, SHOWN_MS, "Copy");
  });
  return button;
}

// Where the browser lets no page write to the clipboard, such as over plain http, there is none.
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("article div.highlight")) {
    block.append(makeButton(block));
  }
}

// On a phone the cells of a row stand below each other: each then says which column it is of.
for (const table of document.querySelectorAll("article table.docutils")) {
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
  for (const row of table.querySelectorAll("tbody tr")) {
    [...row.cells].forEach((cell, at) => { cell.dataset.column = at ? heads[at] ?? "" : ""; });
  }
}
