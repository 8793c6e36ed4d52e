"""The size of a tumour, and what is not said of it."""

import pytest

from guidegen_diffusers.prompts.reader import read


SIZES = r"""
small | a small lung cancer
small | a tiny nodule in the LLL
small | subcentimetre nodule in the RLL
small | tumour size: small. site: rectum
medium | a medium-sized mass in the sigmoid colon
medium | colon cancer of moderate size
large | large left-sided colon cancer
large | The tumor in the ascending colon is large.
large | The tumor, which is large, arises from the right kidney.
large | bulky tumour of the cecum
large | lung cancer, large in size
huge | huge tumor around the descendant colon
huge | giant renal mass on the left
huge | A massive tumour of the transverse colon.
medium | 4.2 cm mass in the left kidney
medium | 38 x 30 mm nodule, RUL
medium | left renal mass, 45mm
large | left renal mass (55 x 48 x 61 mm)
large | 6,5 cm tumor left kidney
large | mass 3 cm from the hilum, 5.5 cm, left lung
large | Tumour size 6 cm, left kidney
huge | The mass measures 9 centimetres.
huge | kidney tumour of more than 7 cm
small | A lung tumour was seen. It measures 12 mm.
small | RML lesion c/w primary lung ca, 1.9 cm. 59 y/o F.
medium | LUL ca 36 mm. 70 yo M.
large | RCC, side not specified. 48 y/o M. 5.8 cm.
medium | Rectal ca. 31 x 38 mm. 80F.
medium | RUL mass 35 mm with a 12 mm lymph node
medium | 5 cm left renal mass and 12 cm renal cyst
medium | Right upper lobe mass, previously 3.1 cm, now 4.2 cm.
medium | tumour increased from 2 to 4 cm in the left kidney
large | Interval growth of the known left upper lobe tumor, now 6.2 cm (previously 4.4 cm).
large | LUL tumour 6 cm (previously measured 4 cm)
large | 6 cm (previously 4 cm) tumour in the LUL
medium | left upper lobe tumor 3.2 cm, previously 5.4 cm
medium | LUL tumor 3.2 cm, formerly 5.4 x 3 cm
medium | right apical lung cancer has shrunk from 5.6 cm to 3.7 cm
medium | RUL cancer decreased from 5.6 x 4 cm to 3.7 x 2 cm
huge | Transverse colon malignancy; since the last CT it has increased from 3.8 cm to 8.1 cm.
huge | Transverse colon cancer. It has grown to 8.1 cm.
medium | Transverse colon cancer. It is now 4 cm.
small | renal cell carcinoma, 2.8 cm, margins negative
small | LUL cancer 5 mm, slice thickness 2 mm
medium | Local recurrence of sigmoid cancer at the anastomosis, 3.4 cm.
small | nodule at a scar in the RUL, 2 cm
- | kidney cancer with a cyst, 5 cm
- | Transverse colon cancer. The liver cyst has grown from 2 cm to 8 cm.
- | Transverse colon cancer. The aorta has increased to 5 cm.
- | Lung cancer. He is now 180 cm tall.
- | LUL tumour previously 6 cm
- | LUL tumour 6 cm prior to 3 cycles of chemotherapy
- | large bowel cancer
- | cancer of the large intestine
- | small cell lung cancer
- | non-small cell lung cancer
- | large cell carcinoma of the lung
- | large and small bowel normal; kidney cancer
- | slice thickness 5 mm; lung cancer
- | 5 mm slices, lung cancer
- | Lung cancer. Slice thickness: 5 mm.
- | 5 cm. Lung cancer.
- | a large man with lung cancer
- | massive pulmonary embolism; lung cancer
- | moderately differentiated adenocarcinoma of the colon
- | lung cancer, previously 6 cm
- | liver metastasis 4 cm, colon cancer
- | a large lung cancer and a small kidney cancer
- | no large tumour
"""


@pytest.mark.parametrize(("expected", "text"), [line.split("|", 1) for line in SIZES.strip().splitlines()])
def test_sizes(expected, text):
    assert read(text).get("size") == (None if expected.strip() == "-" else expected.strip())
