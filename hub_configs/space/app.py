"""The demo as a Space: `python app.py`, with the model's folder or its name on the Hub in GEOMOTIONGPT_MODEL."""

import os
from pathlib import Path

from geomotiongpt.demo.page import build_demo, serve_demo

demo = build_demo(os.environ.get("GEOMOTIONGPT_MODEL") or Path(__file__).with_name("model"))

if __name__ == "__main__":
    print(serve_demo(demo, host="0.0.0.0"), flush=True)
    demo.block_thread()
