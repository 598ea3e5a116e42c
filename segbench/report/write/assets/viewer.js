(function () {
  "use strict";
  var root = document.documentElement, stage = document.getElementById("stage");
  var cases = JSON.parse(document.getElementById("cases").textContent);
  var code = document.getElementById("viewer-code"), view = null, current = -1, busy = Promise.resolve();
  function say(text) { document.getElementById("stage-text").textContent = text; }
  function fallback(reason) {
    root.dataset.viewer = "fallback";
    stage.hidden = true;
    document.getElementById("viewer-note").textContent = reason + " The pictures below take its place.";
  }
  function hasWebGL2() {
    try { return Boolean(document.createElement("canvas").getContext("webgl2")); } catch (error) { return false; }
  }
  function bytes(text) {
    var raw = atob(text), out = new Uint8Array(raw.length);
    for (var i = 0; i < raw.length; i += 1) { out[i] = raw.charCodeAt(i); }
    return out;
  }
  async function start() {
    if (view) { return; }
    if (!hasWebGL2()) { throw new Error("this browser offers no WebGL 2"); }
    var stream = new Blob([bytes(code.textContent.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
    var script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.appendChild(script);
    view = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.5], crosshairWidth: 0.25, show3Dcrosshair: true, isColorbar: false,
      dragAndDropEnabled: false, loadingText: "", logLevel: "error"
    });
    await view.attachToCanvas(document.getElementById("canvas"));
    view.setSliceType(view.sliceTypeMultiplanar);
    view.setMultiplanarLayout(2);
    view.opts.multiplanarShowRender = 1;
  }
  async function show(number) {
    var item = cases.items[number];
    if (!item) { return; }
    stage.hidden = false;
    say("loading " + item.title);
    await start();
    while (view.volumes.length) { view.removeVolume(view.volumes[0]); }
    if (item.scan) {
      view.addVolume(await niivue.NVImage.loadFromBase64({ base64: item.scan, name: "scan.nii.gz" }));
    }
    var mask = await niivue.NVImage.loadFromBase64({ base64: item.mask, name: "mask.nii.gz" });
    mask.setColormapLabel(cases.colours);
    view.addVolume(mask);
    view.updateGLVolume();
    current = number;
    document.querySelectorAll(".case").forEach(function (part) { part.classList.toggle("shown", part.id === "case-" + number); });
    say((number + 1) + " of " + cases.items.length + ": " + item.title + (item.step > 1 ? " (every " + item.step + ". voxel)" : ""));
    root.dataset.viewer = "ready";
    root.dataset.viewerCase = String(number);
  }
  function go(number) {
    busy = busy.then(function () { return show(number); }).catch(function (error) {
      fallback("The 3D view could not start (" + error.message + ").");
    });
  }
  function fromAddress() {
    var match = /^#viewer=(\d+)$/.exec(location.hash);
    if (match && root.dataset.viewer !== "fallback") { go(Number(match[1])); stage.scrollIntoView(); }
  }
  root.dataset.viewer = "idle";
  if (!code || typeof DecompressionStream === "undefined") { fallback("The 3D view is not part of this page or not supported here."); return; }
  window.addEventListener("hashchange", fromAddress);
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !cases.items.length) { return; }
    if (event.key === "j") { location.hash = "viewer=" + Math.min(current + 1, cases.items.length - 1); }
    if (event.key === "k") { location.hash = "viewer=" + Math.max(current - 1, 0); }
  });
  fromAddress();
})();
