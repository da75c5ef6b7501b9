"""The page in a real browser: what a person does, by mouse, by keyboard, on a phone."""

import re
import shutil
import time

import httpx
import pytest
from browsing import SLOW
from playwright.sync_api import expect, sync_playwright
from published_world import SENSOR, index, make_model, publish_segment, random_codes
from served_world import PLACES, publish_world, served

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.grid import tile_at
from data_catalog.model_switch import switch_model
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from data_catalog.query_filters import Filters
from data_catalog.sensors import get_sensor

TILE = PLACES[11].id
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 740}


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: install it, for example with `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page; at the end nothing must have gone wrong, or to another host."""
    contexts, faults = [], []

    def open_at(path="", viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(SLOW)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((address, "data:", "blob:"))
                else faults.append(asked.url)
            ),
        )
        page.goto(f"{address}/{path}")
        page.wait_for_selector("body[data-ready]")
        # What was loaded is drawn in the next frame.
        page.evaluate("new Promise(drawn => requestAnimationFrame(() => setTimeout(drawn)))")
        page.wait_for_load_state("networkidle")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not faults


def shown(page):
    return page.locator("#results li").evaluate_all("all => all.map(li => li.dataset.tile)")


def expected(world, k=12, **options):
    return open_codes(world).similar(TILE, k, **options)["tile_id"].tolist()


def centred_on(tile):
    """The part of an address that puts a tile in the middle of the map."""
    lon, lat = tile.centre
    return f"map={lat:.5f},{lon:.5f},12"


def middle(page):
    box = page.locator("#map").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def colour_at(page, x, y):
    return page.evaluate(
        """([x, y]) => {
          const canvas = document.querySelector("#map canvas");
          const box = canvas.getBoundingClientRect();
          const scale = canvas.width / box.width;
          return [...canvas.getContext("2d").getImageData(
            (x - box.x) * scale, (y - box.y) * scale, 1, 1).data];
        }""",
        [x, y],
    )


def wait_until(page, true):
    deadline = time.monotonic() + SLOW / 1000
    while not true():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_a_click_finds_the_nearest_tiles_and_shows_them(open_page, world):
    page = open_page(f"?{centred_on(PLACES[11])}")
    expect(page.locator("#about")).to_contain_text("40 tiles")
    x, y = middle(page)
    expect(page.locator("#map canvas")).not_to_have_attribute("data-pictures", "0")
    # The world's pictures grow brighter from west to east.
    wait_until(page, lambda: colour_at(page, x - 20, y)[0] + 5 < colour_at(page, x + 20, y)[0])
    page.mouse.click(x, y)
    expect(page.locator("#query h2")).to_have_text(TILE)
    expect(page.locator("#results li")).to_have_count(12)
    assert shown(page) == expected(world)
    assert f"tile={TILE}" in page.url
    first = page.locator("#results li").first
    expect(first).to_contain_text("0 bits")
    expect(first).to_contain_text("km")
    for picture in page.locator("#query img, #results img").all()[:5]:
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("img => img.naturalWidth") > 100


def test_the_slider_and_filters_search_again(open_page, world):
    page = open_page(f"?tile={TILE}")
    page.locator("#k").fill("5")
    expect(page.locator("#results li")).to_have_count(5)
    page.locator("#filters summary").click()
    page.locator("#minimum-distance").fill("2")
    expect(page.locator("#minimum-distance-value")).to_have_text("5 km")
    page.wait_for_url(re.compile("away=2"))
    far = expected(world, 5, filters=Filters(minimum_distance_m=5000))
    assert far != expected(world, 5)
    expect(page.locator("#results li").first).to_have_attribute("data-tile", far[0])
    assert shown(page) == far
    page.locator("#last-day").fill("2020-01-01")
    expect(page.locator("#status")).to_contain_text("loosen")
    page.locator("#clear-filters").click()
    expect(page.locator("#results li")).to_have_count(5)
    assert shown(page) == expected(world, 5)


def test_a_link_shows_the_same_and_back_goes_back(open_page):
    page = open_page(f"?tile={TILE}&k=7")
    page.locator("#results button.card").first.click()
    second = page.locator("#query h2")
    expect(second).not_to_have_text(TILE)
    again = open_page(page.url.rpartition("/")[2])
    assert shown(again) == shown(page)
    page.go_back()
    expect(second).to_have_text(TILE)
    expect(page.locator("#results li")).to_have_count(7)


def test_more_like_this_and_less_like_that(open_page, world):
    page = open_page(f"?tile={TILE}&k=6")
    more, less = shown(page)[0], shown(page)[5]
    page.get_by_role("button", name=f"More like {more}").click()
    page.get_by_role("button", name=f"Less like {less}").click()
    expect(page.locator(".chip")).to_have_count(2)
    page.wait_for_load_state("networkidle")
    codes = open_codes(world)
    wanted = codes.similar_to_examples([TILE, more], [less], 6)["tile_id"].tolist()
    assert shown(page) == wanted
    page.get_by_role("button", name=re.compile(f"Less like {less}: take away")).click()
    expect(page.locator(".chip")).to_have_count(1)


def test_the_map_is_coloured_by_pseudo_label(open_page):
    def colour(tile):
        page = open_page(f"?colour=labels&{centred_on(tile)}")
        return colour_at(page, *middle(page))

    first, second, like_first = (colour(PLACES[i]) for i in (9, 10, 13))
    assert first == like_first != second


def test_everything_goes_by_keyboard(open_page, world):
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the search")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#tile-id")).to_be_focused()
    page.keyboard.type(TILE)
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(12)
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.locator("#k")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#results li")).to_have_count(13)
    page.locator("#results button.card").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#query h2")).to_have_text(expected(world)[0])
    expect(page.locator("#query h2")).to_be_focused()
    # The map: its middle is a tile of the world.
    page.locator("#map").focus()
    expect(page.locator(".crosshair")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#query h2")).not_to_have_text(expected(world)[0])


def test_the_crosshair_is_there_for_keys_alone(open_page):
    page = open_page(f"?{centred_on(PLACES[11])}")
    x, y = middle(page)
    page.mouse.click(x + 5, y)
    expect(page.locator("#query h2")).to_have_text(TILE)
    expect(page.locator("#map")).to_be_focused()
    expect(page.locator(".crosshair")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".crosshair")).to_be_visible()
    page.mouse.click(x + 5, y)
    expect(page.locator(".crosshair")).to_be_hidden()


def test_a_phone_shows_all_of_it_in_its_width(open_page, world):
    page = open_page(f"?tile={TILE}", PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    expect(page.locator("#results li")).to_have_count(12)
    assert shown(page) == expected(world)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#map", "#query", "#results"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", dark))) < 60
    page.locator("#results button.card").nth(1).tap()
    expect(page.locator("#query h2")).to_have_text(expected(world)[1])


@pytest.mark.parametrize("viewport", [PHONE, {"width": 740, "height": 375}])
def test_the_first_view_on_a_phone_shows_pictures(open_page, viewport):
    page = open_page("", viewport, has_touch=True, is_mobile=True)
    canvas = page.locator("#map canvas")
    expect(canvas).to_have_attribute("data-tiles", str(len(PLACES)))
    expect(canvas).to_have_attribute("data-pictures", str(len(PLACES)))


def test_tiles_of_a_few_pixels_are_pictures_too(open_page):
    page = open_page(f"?{centred_on(PLACES[11])[:-2]}8.25")
    canvas = page.locator("#map canvas")
    expect(canvas).to_have_attribute("data-pictures", str(len(PLACES)))
    wait_until(page, lambda: colour_at(page, *middle(page))[:3] != [0x7F, 0x8A, 0x80])
    page = open_page(f"?{centred_on(PLACES[11])[:-2]}5")
    expect(page.locator("#map canvas")).to_have_attribute("data-pictures", "0")


def test_a_tile_that_has_no_code_is_explained_and_what_was_found_before_is_gone(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/?tile={TILE}")
    expect(page.locator("#results li")).to_have_count(12)
    page.locator("#tile-id").fill("UTM1920-32N_0001_0001")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#status")).to_contain_text("has no published code")
    expect(page.locator("#results li")).to_have_count(0)
    expect(page.locator("#query")).to_be_hidden()
    assert "tile=" not in page.url
    page.locator("#tile-id").fill("Paris")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("malformed")
    page.go_back()
    page.go_back()
    expect(page.locator("#query h2")).to_have_text(TILE)
    page.goto(f"{address}/?tile=zzz")
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("#status")).to_contain_text("malformed")
    page.close()


def test_a_tile_is_found_by_its_place_or_in_lower_case(open_page):
    lon, lat = PLACES[11].centre
    for typed in (TILE.lower(), f"{lon:.5f}, {lat:.5f}"):
        page = open_page()
        page.locator("#tile-id").fill(typed)
        page.keyboard.press("Enter")
        expect(page.locator("#query h2")).to_have_text(TILE)
        expect(page.locator("#results li")).to_have_count(12)
        assert f"tile={TILE}" in page.url


def test_who_is_lost_comes_back_to_all_tiles(open_page):
    page = open_page("?map=1000,2000,99")
    canvas = page.locator("#map canvas")
    expect(page.locator("#map-note")).to_have_text("No tiles here")
    page.get_by_role("button", name="All tiles").click()
    expect(canvas).to_have_attribute("data-tiles", str(len(PLACES)))
    expect(page.locator("#map-note")).to_be_hidden()
    expect(page.locator("#about")).to_contain_text(get_sensor(SENSOR).title)


def test_a_distance_has_the_same_colour_in_every_search(open_page, world):
    # Four tiles have the tile's own code: the fifth is the first at another distance.
    [fifth] = [tile for tile in PLACES if tile.id == expected(world, 5)[4]]
    colours = set()
    for k in (5, 39):
        page = open_page(f"?tile={TILE}&k={k}&colour=distance&{centred_on(fifth)}")
        expect(page.locator("#distance-legend")).to_contain_text("32 bits and more")
        colours.add(tuple(colour_at(page, *middle(page))))
    assert len(colours) == 1


def test_the_map_goes_on_over_the_antimeridian(browser, tmp_path):
    lons = (179.90, 179.93, 179.96, -179.96, -179.93, -179.90)
    places = [tile_at(lon, 48.0) for lon in lons]
    catalogue, model = Catalogue.create(tmp_path / "catalogue"), make_model()
    publish_segment(catalogue, "segment-1", index(places[:3]))
    publish_model(catalogue, model)
    rows = code_rows(index(places), random_codes(len(places), seed=1))
    publish_code_tables(catalogue, model, rows)
    with served(catalogue) as address:
        page = browser.new_page(viewport=DESKTOP)
        for centre in (180, -180):
            page.goto(f"{address}/?tile={places[0].id}&shown&map=48,{centre},11")
            expect(page.locator("#map canvas")).to_have_attribute("data-tiles", "6")
            expect(page.locator("#results li")).to_have_count(5)
            x, y = middle(page)
            per_degree = 256 * 2**11 / 360
            for side in (-1, 1):
                place = places[2 if side < 0 else 3]
                away = (180 - abs(place.centre[0])) * per_degree
                page.mouse.click(x + side * away, y)
                expect(page.locator("#query h2")).to_have_text(place.id)
        page.locator("#tile-id").fill("179.9, 48")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Show on map").click()
        expect(page.locator("#map canvas")).to_have_attribute("data-tiles", "6")
        page.close()


def test_all_controls_have_names(open_page):
    page = open_page(f"?tile={TILE}")
    page.locator("#filters summary").click()
    for role in ("button", "slider", "textbox", "checkbox", "radio", "link"):
        for control in page.get_by_role(role).all():
            name = control.evaluate(
                "e => e.ariaLabel || e.title || e.textContent.trim() || e.labels?.[0]?.textContent"
            )
            assert name, control.evaluate("e => e.outerHTML")
    assert page.locator("img:not([alt])").count() == 0


@pytest.fixture
def troubled_page(browser, address):
    """A page whose requests may fail, which its console tells."""
    page = browser.new_page(viewport=DESKTOP)
    page.set_default_timeout(SLOW)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert not faults


def test_pictures_that_do_not_come_are_asked_for_again(troubled_page, address):
    failed = set()

    def fail_once(route):
        if route.request.url in failed:
            route.continue_()
        else:
            failed.add(route.request.url)
            route.fulfill(status=503)

    page = troubled_page
    page.route(re.compile(r"/picture\?"), fail_once)
    page.goto(f"{address}/?tile={TILE}&{centred_on(PLACES[11])}")
    page.locator("body[data-ready]").wait_for()
    x, y = middle(page)
    wait_until(page, lambda: colour_at(page, x - 20, y)[0] + 5 < colour_at(page, x + 20, y)[0])
    large = page.locator("#query img")
    wait_until(page, lambda: large.evaluate("img => img.naturalWidth") > 100)
    assert failed


def test_an_answer_that_is_cut_off_is_told_and_asked_for_again(troubled_page, address):
    page = troubled_page
    cut_off = {"body": '{"results": [', "content_type": "application/json"}
    page.route("**/similar*", lambda route: route.fulfill(**cut_off))
    page.goto(f"{address}/?tile={TILE}")
    expect(page.locator("#status")).to_contain_text("was cut off")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    page.unroute("**/similar*")
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#results li")).to_have_count(12)
    expect(page.locator("#status")).to_contain_text("nearest first")


def test_a_tile_that_the_map_does_not_hold_is_found_by_a_click(troubled_page, address):
    page = troubled_page
    nothing = '{"type": "FeatureCollection", "features": [], "total": 20000}'
    page.route("**/tiles?bbox*", lambda route: route.fulfill(body=nothing))
    page.goto(f"{address}/?{centred_on(PLACES[11])}")
    expect(page.locator("#map-note")).to_contain_text("0 of 20,000 tiles")
    page.mouse.click(*middle(page))
    expect(page.locator("#query h2")).to_have_text(TILE)
    page.goto(f"{address}/?map=20,20,6")
    page.locator("body[data-ready]").wait_for()
    page.mouse.click(*middle(page))
    expect(page.locator("#status")).to_have_text("There is no tile with a code there.")


def test_back_shows_the_map_as_it_was(open_page):
    page = open_page(f"?{centred_on(PLACES[11])}")
    page.mouse.click(*middle(page))
    heading = page.locator("#query h2")
    expect(heading).to_have_text(TILE)
    page.locator("#results button.card").first.click()
    expect(heading).not_to_have_text(TILE)
    page.locator("#map").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(400)
    page.go_back()
    expect(heading).to_have_text(TILE)
    page.go_back()
    expect(heading).to_be_hidden()
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    expect(heading).to_be_visible()
    expect(heading).to_have_text(TILE)


def test_a_page_that_stays_open_goes_over_to_another_model(browser, tmp_path):
    catalogue = publish_world(tmp_path / "catalogue")
    other = make_model(bits=128, seed=2)
    publish_model(catalogue, other)
    rows = code_rows(index(PLACES), random_codes(len(PLACES), bits=128))
    publish_code_tables(catalogue, other, rows)
    with served(catalogue) as address:
        page = browser.new_page(viewport=DESKTOP)
        page.set_default_timeout(SLOW)
        page.goto(f"{address}/?tile={TILE}&colour=distance")
        expect(page.locator("#distance-legend")).to_contain_text("32 bits and more")
        version = httpx.get(f"{address}/codes").json()["version"]
        switch_model(catalogue, other.model_id)
        wait_until(page, lambda: httpx.get(f"{address}/codes").json()["version"] != version)
        page.locator("#k").fill("5")
        expect(page.locator("#distance-legend")).to_contain_text("64 bits and more")
        expect(page.locator("#credit")).to_contain_text(other.model_id)
        expect(page.locator("input[value=labels]")).to_be_disabled()
        page.close()
