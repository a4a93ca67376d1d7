"use strict";
{
  const find = (selector) => document.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const cards = all(".cards > li, .rows > li");
  const lists = all(".cards, .rows").map((list) => [list, [...list.children]]);
  const heaps = all("details");
  const search = find("#q");
  const order = find("#sort");
  const box = find("dialog");
  const image = document.createElement("img");
  const number = (count) => count.toLocaleString("en");
  let texts;
  let sorted = "first"; // as the page was written
  let links = [];
  let at = 0;

  const isShown = (card) => {
    const { id } = find("fieldset :checked");
    return !card.hidden && (id === "a" || card.className === id);
  };

  const tell = () => {
    const count = cards.filter(isShown).length;
    find("output").textContent = `${number(count)} of ${number(cards.length)} shown`;
    find("#nothing").hidden = count > 0 || !cards.length;
  };

  const textOf = (card) => {
    const heap = card.closest("details");
    const names = all("img", card).map((each) => each.alt).join(" ");
    return `${heap ? heap.firstElementChild.textContent : ""} ${card.textContent} ${names}`.toLowerCase();
  };

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    // not before somebody searches: it reads the whole page
    if (words.length) texts ??= new Map(cards.map((card) => [card, textOf(card)]));
    for (const card of cards) card.hidden = !words.every((word) => texts.get(card).includes(word));
    for (const heap of heaps) {
      heap.hidden = !heap.querySelector("li:not([hidden])");
      if (words.length && !heap.hidden) heap.open = true;
    }
    tell();
  };

  const took = (card, without) => Number(card.dataset.took ?? without);
  const title = (card) => card.querySelector("h3").textContent;
  const orders = {
    first: () => 0,
    slow: (one, two) => took(two, -1) - took(one, -1),
    fast: (one, two) => took(one, Infinity) - took(two, Infinity) || 0,
    most: (one, two) => all("img", two).length - all("img", one).length,
    id: (one, two) => title(one).localeCompare(title(two), "en", { numeric: true }),
  };

  const sort = () => {
    if (sorted === order.value) return;
    sorted = order.value;
    for (const [list, own] of lists) {
      list.append(...(order.value === "last" ? [...own].reverse() : [...own].sort(orders[order.value])));
    }
  };

  const show = (to) => {
    at = (to + links.length) % links.length;
    const { href, firstElementChild } = links[at];
    image.src = find("#file").href = href;
    image.alt = firstElementChild.alt;
    find("#caption").textContent = `${image.alt} (${number(at + 1)} of ${number(links.length)})`;
  };

  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  let from = null; // where a finger came down

  find("main").addEventListener("click", (event) => {
    const link = event.target.closest(".pics a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    links = all(".cards > li").filter(isShown).flatMap((card) => all(".pics a", card));
    show(links.indexOf(link));
    box.showModal();
    find("#next").focus();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key in steps) show(at + steps[event.key]);
  });
  image.addEventListener("pointerdown", (event) => {
    from = event.pointerType === "touch" ? event.clientX : null;
  });
  image.addEventListener("pointerup", (event) => {
    const way = from === null ? 0 : event.clientX - from;
    if (Math.abs(way) > 40) show(at - Math.sign(way));
    from = null;
  });
  box.addEventListener("close", () => links[at].focus());
  find("#back").addEventListener("click", () => show(at - 1));
  find("#next").addEventListener("click", () => show(at + 1));
  find("#close").addEventListener("click", () => box.close());

  find(".top").after(image);
  find("fieldset").addEventListener("change", tell);
  search.addEventListener("input", filter);
  order.addEventListener("change", sort);
  find(".find").hidden = false;
  addEventListener("pageshow", () => {
    // by then a browser has brought back what was typed and chosen
    filter();
    sort();
  });
}
