"""Colors of reports, light and dark. A test computes their contrasts: 4.5 for texts, 3 for marks."""

LIGHT = {
    "page": "#f5f6f4", "surface": "#ffffff", "sunken": "#eceeea", "line": "#d4d8d2", "text": "#1c2321",
    "quiet": "#525c58", "accent": "#1b6ca8", "good": "#1f7a3d", "bad": "#b3261e",
    "c1": "#2563a8", "c2": "#2e7d4f", "c3": "#0f7c86", "c4": "#b35900", "c5": "#7b4fa3", "c6": "#b83a62",
    "c7": "#6b7471",
}
DARK = {
    "page": "#101513", "surface": "#181e1c", "sunken": "#222a27", "line": "#36403c", "text": "#e6eae7",
    "quiet": "#a3aea9", "accent": "#74b6ea", "good": "#6fcf8f", "bad": "#ff8a80",
    "c1": "#6ea8e8", "c2": "#6cc28e", "c3": "#54c3cc", "c4": "#eba050", "c5": "#bb9be6", "c6": "#ef8aa9",
    "c7": "#97a19d",
}
SERIES = ("c1", "c2", "c3", "c4", "c5", "c6", "c7")
"""Names of the colors of a chart's parts, in order; ``c7`` is for what remains."""
