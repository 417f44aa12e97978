// What every page needs to talk to the server, and to make elements whose texts are never read as HTML.

/** The JSON at a path; throws an Error with the server's sentence. */
export async function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return answered(await fetch(query ? `${path}?${query}` : path));
}

/** Sends JSON; gives the JSON of the answer. */
export async function post(path, body) {
  return answered(await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }));
}

async function answered(response) {
  if (response.ok) return response.json();
  const told = await response.text();
  let sentence = told;
  try { sentence = JSON.parse(told).fault ?? told; } catch { /* plain text */ }
  throw new Error(sentence);
}

/** An element with attributes (functions: listeners) and children; texts stay texts. */
export function h(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "circle", "text", "polyline", "polygon", "title", "defs", "pattern", "clipPath"];
  const element = svg.includes(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
