"""The volumes of the phantom's organs beside published ones. Published: CT of 149 adults (Geraghty et al., Abdominal
Imaging 29, 2004; kidneys doubled from the mean of one) and the reference adults of ICRP 89 (2002; masses in grams
read as millilitres). A published mean is of people without disease in the organ; phantoms with tumours count.
"""

import argparse

import numpy as np
from measure import print_rows

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.labels import CLASSES
from guidegen_diffusers.phantom import SEEDS


CT, ICRP = "Geraghty 2004", "ICRP 89"
PUBLISHED = {  # organ: (man, woman, source)
    "liver": (1710, 1411, CT),
    "spleen": (238.4, 179.8, CT),
    "kidney": (386.2, 313.0, CT),
    "pancreas": (87.4, 64.4, CT),
    "heart": (840, 620, ICRP),
    "stomach": (400, 370, ICRP),
    "small_bowel": (1000, 880, ICRP),
    "colon": (670, 680, ICRP),
    "gallbladder": (68, 56, ICRP),
    "adrenal_gland": (14, 13, ICRP),
    "esophagus": (40, 35, ICRP),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Organ volumes of the torso phantom beside published ones.")
    parser.add_argument("--count", type=int, default=200, help="phantoms of the test seeds (default: 200)")
    args = parser.parse_args()
    phantom, volumes, men = TorsoPhantom(), [], []
    for i in range(args.count):
        case = phantom.sample(None, SEEDS["test"][i])
        volumes.append(np.bincount(case.labels.ravel(), minlength=len(CLASSES)) * phantom.spacing**3 / 1000)
        men.append(case.attributes["sex"] == "male")
    volumes, men = np.array(volumes), np.array(men)
    rows = [("organ, ml", "men", "published", "women", "published", "smallest", "largest", "source")]
    for organ in CLASSES[1:-1]:
        column = volumes[:, organ.id]
        man, woman, source = PUBLISHED.get(organ.name, ("", "", ""))
        figures = (column[men].mean(), man, column[~men].mean(), woman, column.min(), column.max())
        rows.append((organ.name, *(f"{f:.4g}" if f != "" else "" for f in figures), source))
    print_rows(f"Torso phantom at 6 mm, test seeds 0 to {args.count - 1}: {men.sum()} men, {(~men).sum()} women", rows)


if __name__ == "__main__":
    main()
