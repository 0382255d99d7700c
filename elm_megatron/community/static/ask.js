// Shows an answer while it grows. Without this script the form gives the whole answer as a page.
"use strict";
const form = document.getElementById("ask");
const result = document.getElementById("result");
const answer = document.getElementById("answer");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
let running = null;

stop.addEventListener("click", () => running && running.abort());

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  running = new AbortController();
  const data = new URLSearchParams(new FormData(form));
  result.hidden = false;
  stop.hidden = false;
  send.disabled = true;
  answer.textContent = "";
  try {
    const reply = await fetch("/ask/stream", { method: "POST", body: data, signal: running.signal });
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      answer.textContent += value;
    }
  } catch (error) {
    if (error.name !== "AbortError") answer.textContent += `\n[${form.dataset.down}]`;
  }
  document.getElementById("given-prompt").value = data.get("question");
  document.getElementById("given-answer").value = answer.textContent;
  const traced = document.getElementById("traced-answer");
  if (traced) traced.value = answer.textContent;
  stop.hidden = true;
  send.disabled = false;
  running = null;
});
