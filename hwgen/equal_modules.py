"""Modules of generated Verilog that are equal but for names: each needs to be synthesized only once.

Amaranth writes a module for every instance, and gives names that recur a number from one counter. So the
units of an array are as many modules, which differ only in ``$<number>`` behind some names.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

_MODULE = re.compile(r"^module (\\\S+|\w+) ?\((.*?)\);\n(.*?)^endmodule\n", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"(?<![.\w$])(?:\\([^\s$]*)\S*|([A-Za-z_]\w*))")
_INSTANCE = re.compile(r"^  (\\\S+|\w+)( +(?:\\\S+|\w+) +\(\n)(.*?)(?=^  \);\n)", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"^    \.(\\\S+ |\w+)", re.MULTILINE)
_NAME = re.compile(r"\\\S+|\w+")

PART_CHARACTERS = 4_000_000
"""Verilog text of a part of :meth:`Design.parts`: about 50,000 LUTs, with which Yosys stays below 4 GiB."""


@dataclass(frozen=True)
class Design:
    """Verilog in which equal modules are one.

    Parameters
    ----------
    text : str
    children : dict of str to collections.Counter
        Module: how often it instantiates which modules directly.
    sizes : dict of str to int
        Module: characters of its text.
    """

    text: str
    children: dict
    sizes: dict

    def instances(self, top):
        """How often each module is there below ``top``: a Counter."""
        found = Counter({top: 1})
        for name in self._parents_first(top):
            for child, number in self.children[name].items():
                found[child] += number * found[name]
        return found

    def repeated(self, top, copies=4, share=0.01):
        """Outermost modules with at least ``copies`` instances that are a ``share`` of the whole design."""
        if top not in self.children:
            return []
        instances, kept = self.instances(top), []
        whole = sum(self.sizes[name] * number for name, number in instances.items())

        def visit(name):
            for child in self.children[name]:
                below = sum(self.sizes[one] * number for one, number in self.instances(child).items())
                if instances[child] >= copies and below * instances[child] >= share * whole:
                    kept.append(child)
                else:
                    visit(child)
        visit(top)
        inside = {name for one in kept for name in self._parents_first(one)[1:]}
        return [name for name in dict.fromkeys(kept) if name not in inside]

    def parts(self, top, limit=PART_CHARACTERS):
        """Modules to synthesize each by itself, the top last: those repeated, and those that divide the rest.

        A part is flattened as long as its text stays below ``limit`` characters; of one that does not, the
        largest children become parts, until it does.
        """
        found = self.repeated(top)

        def flattened_size(name):
            below = Counter({child: number * flattened_size(child) for child, number in
                             self.children[name].items() if child not in found})
            size = self.sizes[name] + below.total()
            for child, characters in below.most_common():
                if size > limit:
                    found.append(child)
                    size -= characters
            return size
        if top in self.children:
            flattened_size(top)
        return [*found, top]

    def _parents_first(self, top):
        order, seen = [], set()

        def visit(name):
            if name not in seen:
                seen.add(name)
                for child in self.children[name]:
                    visit(child)
                order.append(name)
        visit(top)
        return order[::-1]


def merge_equal_modules(text):
    """Design of generated Verilog: of modules that are equal but for the numbers behind names, one is left.

    A module that is defined more than once, under ``ifdef``, stays as it is.

    >>> unit = "module unit{0} (a, \\\\b$2{0} );\\n  input a;\\n  output \\\\b$2{0} ;\\nendmodule\\n"
    >>> use = "  unit{0} u{0} (\\n    .a(x),\\n    .\\\\b$2{0} (y{0})\\n  );\\n"
    >>> top = "module top (x);\\n" + use.format(0) + use.format(1) + "endmodule\\n"
    >>> design = merge_equal_modules(top + unit.format(0) + unit.format(1))
    >>> dict(design.instances("top")), r".\\b$20 (y1)" in design.text, "unit1" in design.text
    ({'top': 1, 'unit0': 2}, True, False)
    """
    modules = {match[1]: match for match in _MODULE.finditer(text)}
    defined = Counter(match[1] for match in _MODULE.finditer(text))
    bodies, children, classes, kept = {}, {}, {}, {}

    def visit(name):
        """Name of the module that stands for this one."""
        if name in kept:
            return kept[name]
        children[name] = Counter()
        bodies[name] = _INSTANCE.sub(lambda instance: connect(name, instance), modules[name][3])
        key = _key(f"({modules[name][2]});\n{bodies[name]}") if defined[name] == 1 else name
        kept[name] = classes.setdefault(key, name)
        return kept[name]

    def connect(parent, instance):
        child = instance[1]
        if child not in modules:
            return instance[0]
        chosen = visit(child)
        children[parent][chosen] += 1
        ports = dict(zip(_NAME.findall(modules[child][2]), _NAME.findall(modules[chosen][2]), strict=True))
        lines = _PORT.sub(lambda port: "    ." + _spaced(ports[port[1].strip()], port[1]), instance[3])
        return f"  {chosen}{instance[2]}{lines}"

    for name in modules:
        visit(name)

    def rewrite(match):
        name = match[1]
        if defined[name] > 1:
            return match[0]
        if kept[name] != name:
            return ""
        return match[0].replace(match[3], bodies[name], 1) if match[3] else match[0]
    merged = _MODULE.sub(rewrite, text)
    chosen = set(kept.values())
    return Design(text=merged, children={name: children[name] for name in children if name in chosen},
                  sizes={name: len(bodies[name]) for name in chosen})


def _spaced(name, like):
    """An escaped name ends with a space."""
    return name + " " if name.startswith("\\") else name + (" " if like.endswith(" ") else "")


def _key(text):
    """Equal for modules that differ only in the numbers behind names; names of ports of instances count."""
    numbers = {}

    def renamed(match):
        return f"{match[1] or match[2]}${numbers.setdefault(match[0], len(numbers))}"
    return hashlib.sha256(_WORD.sub(renamed, text).encode()).digest()
