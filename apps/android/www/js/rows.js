// Lists that are drawn anew only when what they show has changed, and keep the focus where it was or near.
const drawn = new WeakMap();

const closer = (list) => list.closest("dialog").querySelector("[data-close]");

/** Fills `list` with `rows()` when `data` differs from the last time. A button's `data-key` finds its successor. */
export function fillRows(list, data, rows) {
  const key = JSON.stringify(data);
  if (drawn.get(list) === key) return;
  drawn.set(list, key);
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...rows());
  if (focused) (list.querySelector(`[data-key="${CSS.escape(focused)}"]`) ?? closer(list)).focus();
}
