// The colours, chosen before the first paint: "light", "dark", or those of the system. See shell.js for the button.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // Storage is blocked; the colours of the system remain.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
