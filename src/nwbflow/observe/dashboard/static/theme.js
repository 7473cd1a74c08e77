// Sets the theme before anything is drawn: a page that is light for a moment is no help in a dark room.
"use strict";

const stored = () => {
  try { return localStorage.getItem("nwbflow-theme"); } catch { return null; }
};
const apply = (theme) => { if (theme) document.documentElement.dataset.theme = theme; };

apply(stored());

addEventListener("DOMContentLoaded", () => {
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  document.getElementById("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    apply(theme);
    try { localStorage.setItem("nwbflow-theme", theme); } catch { /* not kept, then */ }
  });
});
