"use strict";
(() => {
  const TEXTS = {
    en: {
      title: "Is my thesis in it?",
      intro: "These are the works of the dataset. Type a part of the title or of the id.",
      label: "Title or id", more: "Show more", untitled: "(no title)",
      out: "A work can be taken out: give its id to the data steward of the university.",
      none: "No work of this dataset matches.", one: "1 work matches.", many: n => `${n} works match.`,
      first: (n, all) => `${all} works match; the first ${n} are shown.`,
      facts: (n, gone) => `The dataset has ${n} works.` + (gone === "0" ? "" :
        ` Taken down or opted out, and not in it: ${gone}. A model that was made before may have learnt from those.`),
    },
    nl: {
      title: "Zit mijn scriptie erin?",
      intro: "Dit zijn de werken van de dataset. Typ een deel van de titel of van het id.",
      label: "Titel of id", more: "Toon meer", untitled: "(geen titel)",
      out: "Een werk kan eruit: geef het id door aan de data steward van de universiteit.",
      none: "Geen werk van deze dataset past hierbij.", one: "1 werk past hierbij.", many: n => `${n} werken passen hierbij.`,
      first: (n, all) => `${all} werken passen hierbij; de eerste ${n} staan hieronder.`,
      facts: (n, gone) => `De dataset heeft ${n} werken.` + (gone === "0" ? "" :
        ` Verwijderd of bezwaar gemaakt, en er niet in: ${gone}. Een model dat eerder is gemaakt, kan ervan hebben geleerd.`),
    },
  };
  const STEP = 50;
  const LETTERS = { "ß": "ss", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "æ": "ae", "œ": "oe", "ı": "i", "þ": "th", "ħ": "h",
    "‘": "'", "’": "'", "“": "\"", "”": "\"", "–": "-", "—": "-", "‐": "-", "‑": "-" };
  const fold = text => text.normalize("NFKD").toLowerCase().replace(/[\p{M}\u00ad\u200b-\u200d\ufeff]+/gu, "")
    .replace(/[ßøđðłæœıþħ‘’“”–—‐‑]/g, sign => LETTERS[sign]);
  const data = JSON.parse(document.getElementById("works").textContent);
  // One line a work: its id, a tab, its title. Neither holds a tab or a line break.
  const folded = fold(data.works.join("\n")).split("\n");
  const $ = id => document.getElementById(id);
  let language = (navigator.language || "en").toLowerCase().startsWith("nl") ? "nl" : "en";
  let matches = [], shown = 0;

  const having = words => {
    const found = [];
    for (let i = 0; i < folded.length; i += 1) {
      const line = folded[i];
      let all = true;
      for (let k = 0; k < words.length && all; k += 1) all = line.includes(words[k]);
      if (all) found.push(i);
    }
    return found;
  };
  // Every word must be in the id or title; else without punctuation; else the last part of an address.
  const search = query => {
    const text = fold(query).trim();
    if (!text || !data.works.length) return [];
    let found = having(text.split(/\s+/));
    const words = text.split(/[^\p{L}\p{N}]+/u).filter(word => word);
    if (!found.length && words.length && !text.includes("/")) found = having(words);
    if (!found.length && text.includes("/")) {
      const parts = text.replace(/[?#].*$/, "").split("/").filter(part => /\d/.test(part) && !part.includes(" "));
      if (parts.length) found = having([parts[parts.length - 1].replace(/\.(pdf|txt)$/, "")]);
    }
    return found;
  };
  const number = n => n.toLocaleString(language);
  const render = () => {
    const list = $("found"), texts = TEXTS[language];
    for (const i of matches.slice(shown, shown + STEP)) {
      const [id, title] = data.works[i].split("\t");
      const item = document.createElement("li"), name = document.createElement("b"), code = document.createElement("code");
      name.textContent = title || texts.untitled;
      name.dir = "auto";
      code.textContent = id;
      item.append(name, code);
      list.append(item);
    }
    shown = Math.min(matches.length, shown + STEP);
    $("more").hidden = shown >= matches.length;
    const query = $("query").value.trim();
    $("count").textContent = !query ? "" : !matches.length ? texts.none : matches.length === 1 ? texts.one
      : shown < matches.length ? texts.first(number(shown), number(matches.length)) : texts.many(number(matches.length));
  };
  const update = () => {
    matches = search($("query").value);
    shown = 0;
    $("found").replaceChildren();
    render();
  };
  const speak = chosen => {
    language = chosen;
    document.documentElement.lang = chosen;
    document.title = `${TEXTS[chosen].title} · ${data.corpus}`;
    for (const element of document.querySelectorAll("[data-text]")) element.textContent = TEXTS[chosen][element.dataset.text];
    for (const button of document.querySelectorAll("[data-language]"))
      button.setAttribute("aria-pressed", String(button.dataset.language === chosen));
    $("facts").textContent = TEXTS[chosen].facts(number(data.works.length), number(data.gone));
    update();
  };
  $("query").addEventListener("input", update);
  $("form").addEventListener("submit", event => { event.preventDefault(); update(); });
  $("more").addEventListener("click", () => {
    const next = shown;
    render();
    const item = $("found").children[next];
    if (item) { item.tabIndex = -1; item.focus(); }
  });
  for (const button of document.querySelectorAll("[data-language]"))
    button.addEventListener("click", () => speak(button.dataset.language));
  speak(language);
})();
