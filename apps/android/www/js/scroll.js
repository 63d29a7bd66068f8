// The view follows an answer as it is written, until the person scrolls up to read.
import { $ } from "./dom.js";

const NEAR_PX = 40;
const box = $("scroll");
let following = true;
let before = 0;

const distance = () => box.scrollHeight - box.scrollTop - box.clientHeight;

/** Goes to the end, and stays there. */
export function follow() {
  following = true;
  keep();
}

/** After the page has changed: at the end again, if the view was there. */
export function keep() {
  if (following) box.scrollTop = box.scrollHeight;
  before = box.scrollTop;
  $("latest").hidden = following || distance() < NEAR_PX;
}

box.addEventListener(
  "scroll",
  () => {
    // What grows below leaves the view where it is: only a way up is the person's.
    if (distance() < NEAR_PX) following = true;
    else if (box.scrollTop < before) following = false;
    before = box.scrollTop;
    $("latest").hidden = following;
  },
  { passive: true },
);
$("latest").addEventListener("click", follow);
new ResizeObserver(keep).observe(box);
