"""Open a report in a browser as its reader would: by mouse, by keyboard, narrow and wide, light, dark and printed.

    python bench/check_report.py report.html --to shots [--axe node_modules/axe-core/axe.min.js]

It stops at a console error, at a request to the network, at a page wider than the window, at a solution that cannot
be selected, and at what axe-core calls serious. Screenshots go to a folder, to be looked at. Needs playwright
(pip) and Chromium; axe-core is a package of npm, unpacked anywhere outside the project.
"""

import shutil
from pathlib import Path
from typing import Any

from fire import Fire
from playwright.sync_api import Page, sync_playwright

WIDTHS = (400, 1280, 2560)


def listen(page: Page, errors: list[str]) -> None:
    """Collect what the page complains of, and what it asks the network for."""
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: errors.append(asked.url) if asked.url.startswith("http") else None)


def selected(page: Page) -> tuple[str, str]:
    """Return the heading of the solution that is shown, and its first figures."""
    assert page.locator(".card:visible").count() == 1, "one card must be shown"
    card = page.locator(".card:visible")
    return card.locator(".solution h3").inner_text(), card.locator(".figures").inner_text().replace("\n", " ")


def by_mouse_and_keyboard(page: Page) -> list[str]:
    """Return what the card said after each of a few ways to select a solution."""
    points, said = page.locator(".point"), []
    count = points.count()
    if not count:
        return ["no solution"]
    page.locator("#front .chart").scroll_into_view_if_needed()
    box = points.first.bounding_box()
    assert box
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*at)
    said.append(f"mouse over a point: {page.locator('#pointed').inner_text()}")
    page.mouse.click(*at)
    said.append("mouse, a point: {}: {}".format(*selected(page)))
    page.locator(".rows button").last.click()
    found = selected(page)
    assert found[0] == f"Solution #{count - 1}", found
    said.append("mouse, the last row: {}: {}".format(*found))
    page.evaluate("scrollTo(0, 0)")
    page.locator(".point[tabindex='0']").focus()
    for key in ("Home", "ArrowRight", "End"):
        page.keyboard.press(key)
        said.append("key {}: {}: {}".format(key, *selected(page)))
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className").startswith("card"), "Enter must go to the card"
    return said


def serious(page: Page, axe: str) -> list[str]:
    """Return what axe-core finds serious or critical."""
    page.evaluate(Path(axe).read_text(encoding="utf-8"))  # not a script element, which the page's policy refuses
    found: dict[str, Any] = page.evaluate("axe.run()")
    return [
        f"{each['impact']} {each['id']}: {each['help']}: {each['nodes'][0]['html'][:160]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def main(report: str, to: str = "shots", axe: str = "", chromium: str = "") -> None:
    """Check the report, and write its screenshots.

    Args:
        report: the file.
        to: folder of the screenshots.
        axe: axe.min.js of axe-core; without it accessibility is not checked.
        chromium: the browser; without it the one that is on the path.
    """
    folder, errors, browser = Path(to), list[str](), chromium or shutil.which("chromium")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in WIDTHS:
                page = running.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                listen(page, errors)
                page.goto(Path(report).resolve().as_uri())
                over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert over <= 0, f"{over} pixels wider than {width}"
                said = by_mouse_and_keyboard(page)
                if (scheme, width) == ("light", 1280):
                    print("\n".join(said))
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{scheme}-{width}.png", full_page=True)
                if axe:
                    errors += serious(page, axe)
                if (scheme, width) == ("dark", 1280):
                    page.pdf(path=folder / "printed.pdf", format="A4", margin={"top": "1cm", "bottom": "1cm"})
                    page.emulate_media(media="print")
                    page.set_viewport_size({"width": 794, "height": 1123})  # A4
                    page.evaluate("dispatchEvent(new Event('beforeprint'))")
                    page.screenshot(path=folder / "printed.png", full_page=True)
                page.close()
        running.close()
    assert not errors, "\n".join(dict.fromkeys(errors))
    print(f"{report}: no error; screenshots in {folder}")


if __name__ == "__main__":
    Fire(main)
