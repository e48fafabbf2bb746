/* Tables and figures of the report: downloads, and figures in full size; links inside a notebook. All is made from
 * what the page shows. */
(() => {
"use strict";

/** Offer a file. */
function save(name, url) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

function saveBlob(name, blob) {
  const url = URL.createObjectURL(blob);
  save(name, url);
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** A file's name from a heading or a caption. */
function fileName(text, ending) {
  const words = text.normalize("NFKD").toLowerCase().match(/[a-z0-9]+/g) ?? ["page"];
  return `${words.slice(0, 8).join("_")}.${ending}`;
}

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

/** A row of buttons. */
function tools(...buttons) {
  const row = document.createElement("div");
  row.className = "tools";
  row.append(...buttons);
  return row;
}

/** A cell as CSV has it; a sign in front of what a spreadsheet would run as a formula. */
function cell(text) {
  const safe = /^[=@\t\r]|^[+-](?![\d.])/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv(table) {
  return [...table.rows].map((row) => [...row.cells].map((one) => cell(one.textContent)).join(",")).join("\r\n");
}

/** The figure as PNG, at twice its size. */
function savePng(image, name) {
  const canvas = document.createElement("canvas");
  canvas.width = 2 * (image.getAttribute("width") || image.naturalWidth);
  canvas.height = 2 * (image.getAttribute("height") || image.naturalHeight);
  const draw = canvas.getContext("2d");
  draw.fillStyle = "#fff";
  draw.fillRect(0, 0, canvas.width, canvas.height);
  draw.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => saveBlob(name, blob));
}

const dialog = document.createElement("dialog");
dialog.className = "enlarged";
dialog.addEventListener("click", () => dialog.close());

function enlarge(image) {
  const large = new Image();
  large.src = image.src;
  large.alt = image.alt;
  dialog.setAttribute("aria-label", image.alt);
  dialog.replaceChildren(large, button("Close", "Close the figure", () => dialog.close()));
  dialog.showModal();
}

for (const wide of document.querySelectorAll("section .wide")) {
  const title = wide.closest("section").querySelector("h2").textContent;
  const act = () => saveBlob(fileName(title, "csv"), new Blob([csv(wide.querySelector("table"))], { type: "text/csv" }));
  wide.after(tools(button("CSV", `Download the table as CSV: ${title}`, act)));
}

for (const figure of document.querySelectorAll("figure")) {
  const image = figure.querySelector("img");
  image.addEventListener("click", () => enlarge(image));
  const label = (what) => `${what}: ${image.alt}`;
  figure.append(
    tools(
      button("Enlarge", label("Enlarge"), () => enlarge(image)),
      button("SVG", label("Download as SVG"), () => save(fileName(image.alt, "svg"), image.src)),
      button("PNG", label("Download as PNG"), () => savePng(image, fileName(image.alt, "png"))),
    ),
  );
}
document.body.append(dialog);

// In a notebook's frame the page has no address of its own, and a link to a part of it would leave it.
if (location.protocol === "about:") {
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    document.getElementById(link.getAttribute("href").slice(1))?.scrollIntoView();
  });
}
})();
