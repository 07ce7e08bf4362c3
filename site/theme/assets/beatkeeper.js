// What the theme adds to a page when it is shown gets a name, and what scrolls is reached by the keyboard. The theme itself
// removes the tabindex of code where the pointer cannot hover.
const complete = () => {
  document.querySelectorAll(".md-code__nav").forEach((nav, at) => {
    if (!nav.ariaLabel) nav.ariaLabel = `Code ${at + 1}`
  })
  document.querySelectorAll("pre > code, .md-typeset__scrollwrap, p:has(> img)").forEach((it) => {
    if (it.tabIndex) it.tabIndex = 0
  })
}
new MutationObserver(complete).observe(document.body, { childList: true, subtree: true, attributeFilter: ["tabindex"] })
complete()
