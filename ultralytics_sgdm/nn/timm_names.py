"""The attention layers of timm that `attention.py` registers when one is asked for, by the names of `create_attn`."""

ATTENTION = {
    "se": "Squeeze-and-excitation.",
    "ese": "Effective squeeze-and-excitation.",
    "eca": "Efficient channel attention.",
    "ecam": "Efficient channel attention with an MLP.",
    "ceca": "Circular efficient channel attention.",
    "gc": "Global context, multiplied.",
    "gca": "Global context, added.",
    "cbam": "Convolutional block attention module.",
    "lcbam": "Light convolutional block attention module.",
    "coord": "Coordinate attention.",
    "scoord": "Simple coordinate attention.",
    "ela": "Efficient local attention.",
    "strip": "Strip attention.",
    "nl": "Non-local attention; starts as the identity.",
}
