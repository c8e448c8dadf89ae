// The part Tokens: how tokenizers split a text.

import { h } from "/static/page.js";

export function mount(element) {
  element.append(h("p.muted", {}, "Soon."));
}
