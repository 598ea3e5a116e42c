(function () {
  "use strict";
  function key(cell) {
    var value = cell ? cell.getAttribute("data-value") : null;
    var text = value !== null ? value : cell ? cell.textContent.trim().replace(/\u2212/g, "-").replace(/^[<[]/, "") : "";
    var number = text === "inf" ? Infinity : text === "-inf" ? -Infinity : parseFloat(text);
    return isNaN(number) ? text.toLowerCase() : number;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    if (typeof a === "number") { return -1; }
    if (typeof b === "number") { return 1; }
    return a < b ? -1 : a > b ? 1 : 0;
  }
  function sort(head) {
    var row = head.parentNode, place = Array.prototype.indexOf.call(row.children, head), table = head.closest("table");
    var down = head.getAttribute("aria-sort") === "ascending";
    var parts = table.hasAttribute("data-within") ? table.tBodies : [table];  // else groups are merged
    Array.prototype.forEach.call(parts, function (part) {
      Array.prototype.map.call(part.querySelectorAll("tbody tr:not(.group)"), function (line, order) { return [key(line.cells[place]), order, line]; })
        .sort(function (a, b) { return (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1]; })
        .forEach(function (item) { (part === table ? table.tBodies[0] : part).appendChild(item[2]); });
    });
    Array.prototype.forEach.call(row.children, function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.classList.add("sorted");
  }
  function reveal() {
    var aim = /^#viewer=/.test(location.hash) ? document.getElementById("worst") : document.getElementById(location.hash.slice(1));
    for (var part = aim; part; part = part.parentElement) { if (part.tagName === "DETAILS") { part.open = true; } }
  }
  document.querySelectorAll("tr.leaf th").forEach(function (head) {
    head.tabIndex = 0;
    head.addEventListener("click", function () { sort(head); });
    head.addEventListener("keydown", function (event) {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(head); }
    });
  });
  window.addEventListener("hashchange", reveal);
  var opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.prototype.filter.call(document.querySelectorAll("details.printed"), function (part) { return !part.open; });
    opened.forEach(function (part) { part.open = true; });
  });
  window.addEventListener("afterprint", function () { opened.forEach(function (part) { part.open = false; }); });
  reveal();
  document.documentElement.dataset.ready = "1";
})();
