"use strict";
{
  const find = (selector) => document.querySelector(selector);
  const cards = [...document.querySelectorAll(".cards > li")];
  const search = find("#q");
  const box = find("dialog");
  const image = document.createElement("img");
  let texts;
  let links = [];
  let at = 0;

  const visible = () => {
    const { id } = find("fieldset :checked");
    return cards.filter((card) => !card.hidden && (id === "a" || card.className === id));
  };

  const tell = () => {
    find("output").textContent = `${visible().length} of ${cards.length} shown`;
  };

  const filter = () => {
    texts ??= cards.map((card) => card.textContent.toLowerCase());
    const words = search.value.toLowerCase().split(/\s+/);
    cards.forEach((card, number) => {
      card.hidden = !words.every((word) => texts[number].includes(word));
    });
    tell();
  };

  const show = (to) => {
    at = (to + links.length) % links.length;
    const { href, firstElementChild } = links[at];
    image.src = find("#file").href = href;
    image.alt = firstElementChild.alt;
    find("#caption").textContent = `${image.alt} (${at + 1} of ${links.length})`;
  };

  const steps = { ArrowLeft: -1, ArrowRight: 1 };

  find(".cards").addEventListener("click", (event) => {
    const link = event.target.closest(".pics a:not(.gone)");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    links = visible().flatMap((card) => [...card.querySelectorAll(".pics a:not(.gone)")]);
    show(links.indexOf(link));
    box.showModal();
    find("#next").focus();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key in steps) show(at + steps[event.key]);
  });
  box.addEventListener("close", () => links[at].focus());
  find("#back").addEventListener("click", () => show(at - 1));
  find("#next").addEventListener("click", () => show(at + 1));
  find("#close").addEventListener("click", () => box.close());

  box.prepend(image);
  find("fieldset").addEventListener("change", tell);
  search.addEventListener("input", filter);
  find(".find").hidden = false;
  addEventListener("pageshow", filter); // by then a browser has brought back what was typed
}
