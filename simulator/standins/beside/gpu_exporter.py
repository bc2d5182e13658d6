"""nvidia_gpu_exporter: the figures that the dashboards ask for, under its names, from this container's nvidia-smi."""

import argparse
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUERY = [
    "nvidia-smi",
    "--query-gpu=utilization.gpu,temperature.gpu,power.draw,clocks.sm",
    "--format=csv,noheader,nounits",
]
NAMES = ("utilization_gpu_ratio", "temperature_gpu", "power_draw_watts")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        uuid = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
        label = '{uuid="' + uuid.split("UUID: ")[1].rstrip(")\n") + '"}'
        busy, heat, power, _ = subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout.split(", ")
        values = (int(busy) / 100, heat, power)
        lines = (f"# TYPE nvidia_smi_{n} gauge\nnvidia_smi_{n}{label} {v}" for n, v in zip(NAMES, values, strict=True))
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    words = argparse.ArgumentParser(allow_abbrev=False)
    words.add_argument("--web.listen-address", dest="address", default=":9835")
    host, _, port = words.parse_args().address.rpartition(":")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
