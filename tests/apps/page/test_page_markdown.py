"""What a model writes, on the page: markdown is shown, everything else is only text."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page

from tests.apps.host_app import App

DRAW = """(text) => import('/js/render.js').then(({draw}) => {
  const box = document.createElement('div');
  draw(box, text);
  box.querySelectorAll('.code-head').forEach((head) => head.remove());
  return box.innerHTML.replaceAll(' dir="auto"', '').replaceAll(' tabindex="0" dir="ltr"', '');
})"""

KINDS = """(text) => import('/js/render.js').then(({draw}) => {
  const box = document.createElement('div');
  draw(box, text);
  return [...box.querySelectorAll('*')].map((e) => e.localName);
})"""


@pytest.fixture(scope="module")
def page(app: App, browser: Browser) -> Page:
    page = browser.new_page()
    page.goto(app.url)
    return page


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain\ntext", "<p>plain\ntext</p>"),
        ("**b** *i* `c*d*` ~~s~~", "<p><strong>b</strong> <em>i</em> <code>c*d*</code> <del>s</del></p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
        ("a **half", "<p>a **half</p>"),
        ("# One\n### Two", "<h3>One</h3><h5>Two</h5>"),
        ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        (
            "```py\nif a < b:\n    **no**\n```",
            '<div class="code"><pre><code>if a &lt; b:\n    **no**</code></pre></div>',
        ),
        ("```\nopen", '<div class="code"><pre><code>open</code></pre></div>'),
    ],
)
def test_markdown(page: Page, text: str, html: str) -> None:
    assert page.evaluate(DRAW, text) == html


def test_table(page: Page) -> None:
    html = page.evaluate(DRAW, "| a | b |\n|---|:-:|\n| 1 | **2** |")
    assert (
        "<thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><strong>2</strong></td></tr>"
        in html
    )


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "**<b onclick=x>**",
        "- <a href=javascript:x>",
        "```<i>\n<i>",
    ],
)
def test_html_is_only_text(page: Page, text: str) -> None:
    found = page.evaluate(KINDS, text)
    assert not {"img", "script", "b", "a", "i"} & set(found)


def test_a_stream_redraws_only_its_last_block(page: Page) -> None:
    kept = """() => import('/js/render.js').then(({draw}) => {
      const box = document.createElement('div');
      draw(box, 'first\\n\\nsec');
      const [first, second] = box.children;
      draw(box, 'first\\n\\nsecond');
      return [first === box.children[0], second === box.children[1], box.children[1].textContent];
    })"""
    assert page.evaluate(kept) == [True, False, "second"]


@pytest.mark.parametrize("unit", ["*", "**a ", "`", "[(", "> ", "- ", "|-", "```\n", "~~x* "])
def test_hostile_repetition_ends(page: Page, unit: str) -> None:
    """100,000 characters within the page's patience: no reader goes back over what it has read, or recurses deeply."""
    text = unit * (100_000 // len(unit))
    page.evaluate(
        "([text]) => import('/js/render.js').then(({draw}) => draw(document.createElement('div'), text))",
        [text],
    )
