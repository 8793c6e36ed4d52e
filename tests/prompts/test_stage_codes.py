"""T, N and M: as codes, in words, and what is none of them."""

import pytest

from guidegen_diffusers.prompts.reader import read


STAGES = r"""
3 1 0 | lung cancer, T3N1M0
3 - - | T3NMX lung cancer
4 - - | tumor of stage T4NMX
2 - 0 | T2NXM0 lung cancer
1 - - | T1a kidney cancer
2 - - | pT2b lung cancer
3 0 - | ypT3N0 rectal cancer
2 1 0 | pT2b pN1 cM0 lung adenocarcinoma
4 2 1 | T4b N2a M1b sigmoid cancer
3 1 0 | T 3 N 1 M 0 sigmoid cancer
3 2 1 | T3, N2, M1 rectal cancer
3 1 0 | T3/N1/M0 colon cancer
3 1 0 | colon cancer (T3-N1-M0)
2 1 0 | T=2, N=1, M=0 lung cancer
2 0 0 | T stage 2, N stage 0, M stage 0, lung cancer
2 - - | lung cancer stage T 2
0 - - | T0 lung cancer
3 0 1 | cancer = right kidney; T = 3; N = 0; M = 1.
2 1 0 | T: 2. N: 1. M: 0. Lung cancer.
2 0 0 | Lung cancer. T stage 2. N stage 0. M stage 0.
- - - | Lung cancer, T = 2.5, field 1.5 T
2 1 0 | {"site": "rectum", "t": 2, "n": 1, "m": 0}
- 0 0 | TisN0M0 colon carcinoma
- - - | TX lung cancer
- - - | T2 or T3 colon cancer
- 2 - | N2 lung cancer
- - 1 | lung cancer, M1
- - - | kidney cancer at T4
- - 1 | T4 vertebral metastasis from lung cancer
- - 1 | lung cancer with metastasis at T10 level
- - - | T12 rib fracture, lung cancer
- - - | T2-weighted and T1-weighted images of lung cancer
- - - | T2DM and lung cancer
- - - | BMI 31 kg/m2, lung cancer
- - 0 | lung cancer without metastases
- - 0 | non-metastatic colon cancer
- - 0 | the cancer has not spread
- - 0 | colon cancer, no distant metastases
- 0 0 | No mets, no nodes, left renal tumour
- 0 0 | lung cancer without nodal or distant metastases
- 0 - | node-negative colon cancer
- 0 - | lung cancer without lymphadenopathy
- 0 - | lung cancer, lymph nodes negative
- 0 - | lung cancer, lymph nodes are not involved
- - - | colon cancer with nodal involvement
- - - | lung cancer with mediastinal lymph node metastases
- - 1 | metastatic colon cancer
- - 1 | colon cancer with distant metastases
- - 1 | Stage IV lung cancer
- - 1 | stage 4 colon cancer
- - - | stage IV kidney cancer
- - - | stage IIIA lung cancer
- - - | colon cancer, possible liver metastases
- - - | colon cancer with no evidence of lung or liver metastases
- 0 1 | lung cancer; no lymphadenopathy but distant metastases
- - - | No tumour. T0N0M0.
"""


@pytest.mark.parametrize(("expected", "text"), [line.split("|", 1) for line in STAGES.strip().splitlines()])
def test_stages(expected, text):
    fields = read(text)
    found = [fields.get(letter) for letter in "tnm"]
    assert found == [None if value == "-" else int(value) for value in expected.split()]
