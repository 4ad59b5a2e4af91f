"use strict";
// Shows the text of the mark that is nearest to the pointer, or that an arrow key leads to.
const plane = document.querySelector(".points"), tip = document.querySelector(".tip");
const ring = document.querySelector(".ring"), REACH = 15;
const HINT = tip.textContent;
const all = [...plane.querySelectorAll(".mark")].map((mark) => {
  const title = mark.querySelector("title"), text = title.textContent;
  title.remove(); // or the browser would show it a second time
  return { mark, text, x: +mark.getAttribute("x"), y: +mark.getAttribute("y") };
});
let visible = all, current = null;

function show(point) {
  current = point;
  ring.style.display = point ? "inline" : "none";
  tip.textContent = point ? point.text : HINT;
  if (!point) return;
  ring.setAttribute("cx", point.x);
  ring.setAttribute("cy", point.y);
}

function nearest(distance) {
  let best = null, least = Infinity;
  for (const point of visible) {
    const here = distance(point);
    if (here <= least && here < Infinity) [best, least] = [point, here]; // the last one is on top
  }
  return best;
}

function atPointer(event) {
  const at = new DOMPoint(event.clientX, event.clientY)
    .matrixTransform(plane.getScreenCTM().inverse());
  show(nearest(({ x, y }) => {
    const far = Math.hypot(x - at.x, y - at.y);
    return far < REACH ? far : Infinity;
  }));
}
plane.addEventListener("pointermove", atPointer);
plane.addEventListener("pointerdown", atPointer);

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
plane.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  const from = current || { x: plane.viewBox.baseVal.width / 2, y: plane.viewBox.baseVal.height / 2 };
  const next = nearest((point) => {
    const x = point.x - from.x, y = point.y - from.y;
    const along = x * step[0] + y * step[1], aside = Math.abs(x * step[1] + y * step[0]);
    return along > 0 && aside <= along ? Math.hypot(along, 2 * aside) : Infinity;
  });
  if (next) show(next);
});

document.querySelector(".map").addEventListener("change", () => {
  visible = all.filter(({ mark }) => getComputedStyle(mark).display !== "none");
  if (!visible.includes(current)) show(null);
});
