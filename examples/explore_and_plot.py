"""Searches the sizes of an accelerator for a device and plots the Pareto front, as `hwgen explore` does.

    python examples/explore_and_plot.py --model build/demo/pruned.pt --device kv260
"""

import argparse
from pathlib import Path

from hwgen import explore

WIDTH, HEIGHT, MARGIN = 640, 400, 50


def main():
    """Search, print the front, draw cycles against LUTs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("build/demo/pruned.pt"))
    parser.add_argument("--device", default="kv260")
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("build/exploration"))
    arguments = parser.parse_args()
    found = explore(arguments.model, arguments.device, points=arguments.points, out=arguments.out)
    for one in found.front:
        print(f"{one.cycles:10,d} cycles  {one.luts:8,d} LUT  {one.dsps:5,d} DSP  "
              f"{one.point.command(found.model, 'BUILD', found.device, found.tokens)}")
    picture = arguments.out / "front.svg"
    picture.write_text(plot([one for one in found.evaluations if one.fits], found.front))
    print(picture)


def plot(points, front):
    """An SVG picture of cycles (across) against LUTs (up): all points, and those of the front filled."""
    widest, highest = max(one.cycles for one in points), max(one.luts for one in points)
    dots = []
    for one in points:
        x = MARGIN + (WIDTH - 2 * MARGIN) * one.cycles / widest
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * one.luts / highest
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" stroke="#1f6fb2" '
                    f'fill="{"#1f6fb2" if one in front else "none"}"/>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(dots)}'
            f'<text x="{WIDTH / 2}" y="{HEIGHT - 15}" text-anchor="middle">cycles, up to {widest:,}</text>'
            f'<text x="{MARGIN}" y="25">LUTs (modelled), up to {highest:,}</text></svg>\n')


if __name__ == "__main__":
    main()
