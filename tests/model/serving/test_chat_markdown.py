"""How the page Chat shows markdown: which elements it builds, while text arrives and at its end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import watched
from support.chat_page import ChatPage, page_served

SHOW = """async ([text, sizes]) => {
  const { Markdown, showMarkdown } = await import("/static/model/chat/markdown.js");
  const element = document.createElement("div");
  if (!sizes.length) showMarkdown(element, text);
  else {
    const view = new Markdown(element);
    for (let at = 0, place = 0; at < text.length; place++) {
      const end = at + sizes[place % sizes.length];
      view.append(text.slice(at, end));
      at = end;
    }
    view.finish();
  }
  for (const copy of element.querySelectorAll(".code-head, .code")) copy.replaceWith(...copy.querySelectorAll("pre"));
  for (const each of element.querySelectorAll("*")) {
    const names = ["href", "start", "class"].filter((name) => each.hasAttribute(name) && each.getAttribute(name));
    const kept = names.map((name) => [name, each.getAttribute(name)]);
    for (const { name } of [...each.attributes]) each.removeAttribute(name);
    for (const [name, value] of kept) each.setAttribute(name, value);
  }
  return element.innerHTML;
}"""


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Any]:
    with page_served() as served, watched(browser) as watching:
        ChatPage(watching.page, served)
        yield watching.page


def shown(page: Any, text: str, *sizes: int) -> str:
    """Return what a text becomes; with sizes, when it arrives in pieces of these sizes."""
    found: str = page.evaluate(SHOW, [text, sizes])
    return found


CASES = {
    "plain": ("Hello, world.", "<p>Hello, world.</p>"),
    "paragraphs": ("a\nb\n\n\nc", "<p>a<br>b</p><p>c</p>"),
    "emphasis": ("*a* _b_ **c** __d__ ***e***", "<p><em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong>"
                 " <em><strong>e</strong></em></p>"),
    "emphasis in emphasis": ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    "no emphasis": ("2 * 3 * 4 and snake_case_name and *open", "<p>2 * 3 * 4 and snake_case_name and *open</p>"),
    "struck out": ("~~a~~ ~b~", "<p><del>a</del> ~b~</p>"),
    "code in a line": ("`a*b*` ``c`d`` `open", "<p><code>a*b*</code> <code>c`d</code> `open</p>"),
    "escapes": (r"\*a\* \# \\ \q", r"<p>*a* # \ \q</p>"),
    "headings": ("# a\n## b ##\n####### c\n#d", '<h3 class="level-1">a</h3><h4 class="level-2">b</h4>'
                 "<p>####### c<br>#d</p>"),
    "rule": ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
    "list": ("- a\n- b", "<ul><li>a</li><li>b</li></ul>"),
    "list after a paragraph": ("a:\n- b\n- c", "<p>a:</p><ul><li>b</li><li>c</li></ul>"),
    "numbered": ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    "a year is no list": ("It was\n1984. Then", "<p>It was<br>1984. Then</p>"),
    "nested": ("- a\n  - b\n    - c\n- d", "<ul><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ul>"),
    "nested by two under a number": ("1. a\n  - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    "nested by four": ("* a\n    * b", "<ul><li>a<ul><li>b</li></ul></li></ul>"),
    "loose": ("1. a\n\n2. b", "<ol><li><p>a</p></li><li><p>b</p></li></ol>"),
    "paragraphs in an item": ("- a\n\n  b", "<ul><li><p>a</p><p>b</p></li></ul>"),
    "code in an item": ("1. a\n   ```\n   x\n   ```\n2. b",
                        "<ol><li>a<pre><code>x</code></pre></li><li>b</li></ol>"),
    "tasks": ("- [ ] a\n- [x] b", "<ul><li>☐ a</li><li>☑ b</li></ul>"),
    "quote": ("> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"),
    "code": ("```py\nx = 1\n\n<b>\n```\nafter", "<pre><code>x = 1\n\n&lt;b&gt;</code></pre><p>after</p>"),
    "code that does not end": ("~~~\n*a*\n```", "<pre><code>*a*\n```</code></pre>"),
    "code within longer marks": ("````\n```\n````", "<pre><code>```</code></pre>"),
    "table": ("| a | b |\n|:-:|--:|\n| 1 | `x|y` |\n| 2 |", '<div class="wide"><table><thead><tr>'
              '<th class="center">a</th><th class="right">b</th>'
              '</tr></thead><tbody><tr><td class="center">1</td><td class="right"><code>x|y'
              '</code></td></tr><tr><td class="center">2</td><td class="right"></td></tr></tbody></table></div>'),
    "no table": ("a | b\nc | d", "<p>a | b<br>c | d</p>"),
    "link": ("[a *b*](https://x.org/c_(d) \"t\").", '<p><a href="https://x.org/c_(d)">a <em>b</em></a>.</p>'),
    "bare addresses": ("see https://x.org/a_b_c. (http://y.org) xhttps://z.org", '<p>see <a href="https://x.org/a_b_c">'
                       'https://x.org/a_b_c</a>. (<a href="http://y.org">http://y.org</a>) xhttps://z.org</p>'),
    "address in angles": ("<https://x.org>", '<p><a href="https://x.org">https://x.org</a></p>'),
    "image": ("![a](https://x.org/i.png)", '<p><a href="https://x.org/i.png">Image: a</a></p>'),
    "markup": ("<script>alert(1)</script>\n\n<img src=x onerror=alert(1)> &lt;",
               "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p><p>&lt;img src=x onerror=alert(1)&gt; &amp;lt;</p>"),
    "brackets": ("[a] [b](c d) ](", "<p>[a] [b](c d) ](</p>"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_markdown_becomes_elements(page: Any, text: str, expected: str) -> None:
    assert shown(page, text) == expected


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)", "JAVASCRIPT:alert(1)", "java\tscript:alert(1)", "data:text/html,x", "vbscript:x",
        "//x.org", "/api", "file:///etc/passwd", "blob:x.org/1", "https://user:secret@x.org", "http://", "#chat",
    ],
)  # fmt: skip
def test_only_addresses_of_the_web_become_links(page: Any, address: str) -> None:
    for text in (f"[a]({address})", f"![a]({address})", f"<{address}>", f"[a](<{address}>)"):
        assert "<a" not in shown(page, text)


def test_links_do_not_tell_where_they_are_and_open_elsewhere(page: Any) -> None:
    link = page.evaluate(
        """async () => {
          const { inline } = await import("/static/model/chat/inline.js");
          const { rel, target, href } = inline("https://x.org").querySelector("a");
          return { rel, target, href };
        }"""
    )
    assert link == {"rel": "noopener noreferrer nofollow", "target": "_blank", "href": "https://x.org/"}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_text_that_arrives_in_pieces_ends_as_the_whole(page: Any, text: str, expected: str) -> None:
    assert shown(page, text, 1) == expected
    draws = random.Random(text)
    assert shown(page, text, *(draws.randint(1, 7) for _ in range(9))) == expected


def test_all_texts_together_in_random_pieces_end_as_the_whole(page: Any) -> None:
    for seed in range(6):
        draws = random.Random(seed)
        texts = [text for text, _ in CASES.values() if "~~~" not in text]
        draws.shuffle(texts)
        text = "\n\n".join(texts)
        sizes = [draws.randint(1, 40) for _ in range(50)]
        assert shown(page, text, *sizes) == shown(page, text)


def test_what_is_finished_is_not_built_again(page: Any) -> None:
    kept = page.evaluate(
        """async () => {
          const { Markdown } = await import("/static/model/chat/markdown.js");
          const element = document.createElement("div");
          const view = new Markdown(element);
          view.append("# a\\n\\nb\\n\\n- c\\n- d\\n\\nlast\\n\\n```\\nx\\n");
          const before = [...element.children];
          const code = element.querySelector("pre");
          for (let line = 0; line < 200; line++) view.append(`line ${line}\\n`);
          view.append("```\\n\\nmore\\n\\nand more\\n\\n");
          view.finish();
          const parts = [...element.querySelector("pre").children].map((part) => part.textContent.split("\\n").length);
          const isSame = before.every((each, at) => element.children[at] === each);
          return [isSame, before.length, code === element.querySelector("pre"), parts];
        }"""
    )
    assert kept == [True, 5, True, [64, 64, 64, 9]]


@pytest.mark.parametrize(
    "piece",
    ["word ", "- item\n", "| a | b |\n", "> quote\n", "x", "*", "[", "](", "`", "``a", "> > ", "**a", "_a ", "![", "<http://",
     "https://x.org/(", "\\", "~~", "#", "- - ", "1. ", "\n", "|-", "😀"],
)  # fmt: skip
def test_long_and_nested_text_is_shown_whole(page: Any, piece: str) -> None:
    text = "| h | i |\n|---|---|\n" * (piece == "| a | b |\n") + piece * (30_000 // len(piece))
    for sizes in ((), (4000,)):
        letters = page.evaluate(
            """async ([text, sizes]) => {
              const { Markdown, showMarkdown } = await import("/static/model/chat/markdown.js");
              const element = document.createElement("div");
              if (!sizes.length) showMarkdown(element, text);
              else {
                const view = new Markdown(element);
                for (let at = 0; at < text.length; at += sizes[0]) view.append(text.slice(at, at + sizes[0]));
                view.finish();
              }
              let deepest = 0;
              for (const walk = document.createTreeWalker(element); walk.nextNode(); ) {
                let depth = 0;
                for (let each = walk.currentNode; each !== element; each = each.parentNode) depth++;
                deepest = Math.max(deepest, depth);
              }
              return [deepest, element.textContent.includes("\\ufffd")];
            }""",
            [text, sizes],
        )
        assert letters[0] < 80
        assert not letters[1]


def test_code_is_copied_as_it_was_written(page: Any) -> None:
    lines = [f"line {number}" + ("\t" if number % 3 else "") for number in range(150)] + ["", "  end"]
    text = "```\n" + "\n".join(lines) + "\n```"
    page.evaluate(
        """async (text) => {
          const { showMarkdown } = await import("/static/model/chat/markdown.js");
          const element = document.createElement("div");
          element.id = "copied";
          document.body.append(element);
          showMarkdown(element, text);
          element.querySelector("button").click();
        }""",
        text,
    )
    page.wait_for_selector("#copied button:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(lines)
    page.evaluate("document.getElementById('copied').remove()")
