(function () {
  "use strict";
  function key(cell) {
    var value = cell ? cell.getAttribute("data-value") : null;
    if (value !== null) { return value === "inf" ? Infinity : value === "-inf" ? -Infinity : parseFloat(value); }
    var text = cell ? cell.textContent.trim() : "";
    var number = parseFloat(text.replace(/^</, ""));
    return isNaN(number) ? text.toLowerCase() : number;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    if (typeof a === "number") { return -1; }
    if (typeof b === "number") { return 1; }
    return a < b ? -1 : a > b ? 1 : 0;
  }
  function sort(head) {
    var row = head.parentNode, place = Array.prototype.indexOf.call(row.children, head);
    var body = head.closest("table").tBodies[0], down = head.getAttribute("aria-sort") === "ascending";
    var lines = Array.prototype.filter.call(body.rows, function (line) { return !line.classList.contains("fixed"); });
    lines.map(function (line, order) { return [key(line.cells[place]), order, line]; })
      .sort(function (a, b) { return (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1]; })
      .forEach(function (item) { body.appendChild(item[2]); });
    Array.prototype.forEach.call(row.children, function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
  document.querySelectorAll("tr.leaf th").forEach(function (head) {
    head.tabIndex = 0;
    head.addEventListener("click", function () { sort(head); });
    head.addEventListener("keydown", function (event) {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(head); }
    });
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
  document.documentElement.dataset.ready = "1";
})();
