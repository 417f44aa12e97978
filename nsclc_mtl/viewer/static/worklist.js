import { get, h } from "./api.js";

const place = document.getElementById("worklist");
const { patients } = await get("/api/worklist");
place.append(h("ul", {}, patients.map((patient) => h("li", {}, h("a", { href: `/patient?${new URLSearchParams({ id: patient.id })}` }, patient.id)))));
