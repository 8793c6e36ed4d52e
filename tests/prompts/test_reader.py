"""What the reader promises: the set of sites that a text allows, and never a guess passed off as knowledge."""

import re

import pytest

from guidegen_diffusers.prompts.attributes import ALL_SITES, COLON, KIDNEY, LUNG, TUMOR_SITES
from guidegen_diffusers.prompts.reader import read


SHORT = {
    "LUL": {"left_upper_lung"},
    "LLL": {"left_lower_lung"},
    "RUL": {"right_upper_lung"},
    "RML": {"right_middle_lung"},
    "RLL": {"right_lower_lung"},
    "LK": {"left_kidney"},
    "RK": {"right_kidney"},
    "AC": {"ascending_colon"},
    "TC": {"transverse_colon"},
    "DC": {"descending_colon"},
    "SR": {"sigmoid_or_rectum"},
    "none": {"none"},
    "lung": LUNG,
    "left_lung": {"left_upper_lung", "left_lower_lung"},
    "right_lung": {"right_upper_lung", "right_middle_lung", "right_lower_lung"},
    "upper_lobes": {"left_upper_lung", "right_upper_lung"},
    "lower_lobes": {"left_lower_lung", "right_lower_lung"},
    "kidney": KIDNEY,
    "colon": COLON,
    "right_colon": {"ascending_colon", "transverse_colon"},
    "left_colon": {"descending_colon", "sigmoid_or_rectum"},
    "any": TUMOR_SITES,
    "all": ALL_SITES,
}


def expand(short: str) -> frozenset[str]:
    """ "LUL none" is a set of sites; "all -lung" is all but the lungs."""
    sites: set[str] = set()
    for word in short.split():
        sites = sites - SHORT[word[1:]] if word.startswith("-") else sites | SHORT[word]
    return frozenset(sites)


def cases(table: str):
    """Lines of "sites | text" as parameters; a backslash at a line's end joins it to the next."""
    found = []
    for line in re.sub(r" \\\n *", " ", table).strip().splitlines():
        expected, text = line.split("|", 1)
        found.append(pytest.param(expand(expected), text.strip().replace("\\n", "\n"), id=text.strip()))
    return pytest.mark.parametrize(("expected", "text"), found)


PAPERS = r"""
LUL | This patient is a white male. In this medical CT scan, his clinical status can be described as an advanced \
    lung cancer in the upper left lobe, with a TNM staging of T3NMX.
DC | This patient is a black African American of unknown age and non-Hispanic or Latino race. In this CT image, \
    the patient's condition is described as huge tumor around the descendant colon, of stage T4NMX.
colon | A person diagnosed with colon cancer
all | The patient is a white male.
all | A 54-year-old woman.
all |
none | The patient is a white male. In this CT scan, the patient's condition is described as no tumor.
LUL | The patient is a white male. In this CT scan, the patient's condition is described as an advanced lung \
    cancer in the upper left lobe.
"""


@cases(PAPERS)
def test_the_sentences_of_the_papers_are_read(expected, text):
    assert read(text)["sites"] == expected


ORGANS_AND_PARTS = r"""
lung | lung cancer
lung | pulmonary nodule
lung | Bronchogenic carcinoma.
lung | bronchial carcinoma
lung | Patient with NSCLC, on chemotherapy.
lung | non-small cell lung cancer
lung | SCLC
lung | small cell lung cancer
lung | a malignancy of the lungs
left_lung | left lung cancer
left_lung | Tumour in the left lung.
right_lung | lung cancer on the right
right_lung | NSCLC, right-sided
right_lung | carcinoma of the lung (right)
LUL | LUL mass
LLL | LLL nodule
RUL | RUL adenocarcinoma
RML | carcinoma, RML
RLL | pt c/w RLL mass
upper_lobes | upper lobe tumour
RML | middle lobe cancer
lower_lobes | tumor of the lower lobe
left_lung | left middle lobe tumour
LUL | mass in the lingula
LUL | lingular nodule
upper_lobes | Pancoast tumour of the lung apex
LUL | left Pancoast tumour
LUL | upper left lobe tumor
LUL | cancer of the left lung, upper lobe
LUL | lobe, left upper: carcinoma
LUL | tumor of the left upper-lobe
LUL | LEFT UPPER LOBE MASS
RUL | lung apex on the right shows a mass
LLL | a mass at the base of the left lung
LLL | Tumour at the left base.
RLL | mass in the right lower lung
RUL | right upper zone mass
RLL | nodule in the lower lobe of the right lung
RLL | A nodule is seen in the inferior lobe of the right lung.
LUL LLL | masses in the upper and lower lobes of the left lung
LUL RUL | left and right upper lobe masses
RUL RML | cancer of the right upper and middle lobes
lower_lobes | tumours in both lower lobes
upper_lobes | bilateral upper lobe nodules
lung | nodules in both lungs
kidney | kidney cancer
kidney | Renal cell carcinoma.
kidney | RCC
kidney | hypernephroma
kidney | Grawitz tumour
kidney | a 3-year-old with nephroblastoma
kidney | Wilms' tumor
kidney | renal mass
kidney | bilateral kidney tumours
LK | ccRCC of the left kidney
LK | left renal mass
LK | left exophytic enhancing renal mass
LK | Mass arising from the upper pole of the left kidney.
LK | kidney (left): mass
RK | right-sided renal cell carcinoma
RK | RCC on the right
RK | tumour of the right renal pelvis
RK | RIGHT KIDNEY TUMOR
kidney | tumour in either kidney
colon | colorectal cancer
colon | CRC
colon | large bowel cancer
colon | bowel cancer
colon | carcinoma of the large intestine
AC | tumor of the ascending colon
AC | caecal carcinoma
AC | cancer of the cecum
TC | transverse colon cancer
DC | Tumour in the descending colon.
SR | rectal cancer
SR | sigmoid carcinoma
SR | rectosigmoid adenocarcinoma
SR | Ca rectum
AC TC | mass at the hepatic flexure
TC DC | splenic flexure tumour
right_colon | right-sided colon cancer
right_colon | cancer of the right colon
right_colon | tumor in the right hemicolon
left_colon | left-sided colon cancer
left_colon | left hemicolon carcinoma
AC TC | tumours of the ascending and transverse colon
AC TC SR | a tumor in the ascending, transverse or sigmoid colon
TC | left transverse colon cancer
any | a tumour
any | cancer
any | The patient has a malignancy.
any | right-sided tumour
any | A mass was found.
LK TC | a tumor in the left kidney or the transverse colon
LK AC | Cancer of the left kidney and the ascending colon.
LK AC | left renal mass and a tumour in the ascending colon
lung kidney | lung or kidney cancer
LUL RK | LUL nodule and right renal mass
kidney colon | an abdominal tumour
lung | a thoracic malignancy
AC | A 67 year old gentleman with a biopsy-proven adenocarcinoma of the caecum, cT3N1M0.
RK | Mrs Smith, 54, was found to have a 3.8 x 3.0 cm mass in the lower pole of her right kidney.
LK | Pt is a 45 y.o. F c/o hematuria; CT: 7.2 cm heterogeneous L renal mass, c/w RCC. No LAD.
LK | Dx: RCC (L)
LK | Ca kidney L
RUL | Malignant neoplasm of upper lobe, right bronchus or lung
LUL | the upper portion of the left lung contains a tumor
LUL | tumour at the top of the left lung
RUL | apical segment of the right upper lobe: nodule
LLL | posterior basal segment of left lower lobe, 2cm nodule
RML RLL | Lung carcinoma involving right middle and lower lobes
AC | cecal pole tumour
AC | Colon, ascending: adenocarcinoma
SR | cancer of the colon (sigmoid)
DC SR | descending/sigmoid colon mass
AC TC | tumour spanning ascending colon to hepatic flexure
LUL LLL | Tumor in LUL and/or LLL
LK | Kidney cancer, stage T1bN0M0, left side
LLL SR | two primaries: left lower lobe NSCLC and rectal adenocarcinoma
LUL RK | One tumour in the left upper lobe and another in the right kidney
AC SR | A tumour in either the cecum or the rectum
kidney | Either the left or the right kidney has a tumour.
LK | urothelial carcinoma of the left renal pelvis
LLL | LLL squamous cell lung cancer
LLL AC | Double primary: caecal carcinoma plus an LLL squamous cell lung cancer
RUL SR | rectal cancer and an RUL poorly differentiated lung cancer
LK SR | left kidney papillary renal cancer and rectal carcinoma
LLL | RUL emphysema, LLL squamous cell lung cancer
RK | left kidney large right renal mass
lung | LLL pneumonia, lung cancer
LLL | In the superior segment of the left lower lobe there is a nodule.
LLL | superior and basal segments of the left lower lobe contain a mass
RLL | Mass in the apical segment of the right lower lobe
LUL | mass in the superior lingular segment
DC | upper segment of the descending colon: tumour
RUL | the apical segment of the right lung has a mass
RK | The right kidney contains a tumour limited to the kidney.
RLL | Right lower lobe: carcinoma limited to the lung
AC | The ascending colon shows a tumour of the colon
LK | The right kidney is normal, RCC of the kidney
RK | Right nephrectomy specimen: clear cell RCC, ISUP grade 2, confined to the kidney
LUL | Left upper lobectomy specimen: adenocarcinoma confined to the lung
right_colon | Right hemicolectomy: adenocarcinoma limited to the bowel
left_lung | left hilar tumour
left_lung | endobronchial lesion in the left main bronchus
right_lung | a shadow on the right lung
colon | cT3 colon
any | T3N1M0
"""


@cases(ORGANS_AND_PARTS)
def test_organs_sides_and_parts_narrow_each_other_in_any_order(expected, text):
    assert read(text)["sites"] == expected


SLIPS = r"""
any | tumuor
LK | left kidny tumor
AC | carcenoma of the assending colon
SR | sigmoyd cancer
LUL | left uper lobe tumor
LUL | left upper lober mass
DC | tumour of the desending colon
lung | pulmunary adenocarcinma
kidney | kideny cancer
TC | transverce colon tumour
colon | colrectal cancer
SR | rectel carcinoma
all | The patient had lunch and paid a rental fee.
all | It was a real lesson in color, and the tutor cancelled.
all | Adrenal glands and renal arteries were reported.
all | He reigns over a colony.
"""


@cases(SLIPS)
def test_slips_of_the_pen_are_mended_and_make_no_false_friends(expected, text):
    assert read(text)["sites"] == expected


OTHER_FINDINGS = r"""
all | renal cyst
all | Kidney stones on both sides.
all | simple cyst in left kidney
all | Emphysema of both lungs.
all | pneumonia in the left lower lobe
all | diverticulosis of the sigmoid
all | Atelectasis at the right base, appendicitis.
all | pyelonephritis and hydronephrosis of the right kidney
all | interstitial lung disease
all | small bowel obstruction
LK | mass in the left kidney and stones in the right kidney
LK | left kidney mass, right renal cyst
RUL | emphysema and a mass in the right upper lobe
RUL | Pneumonia in the left lower lobe and a nodule in the right upper lobe.
colon | Lung transplant patient with colon cancer
colon | colon cancer in a patient with pulmonary embolism
colon | A patient with chronic kidney disease and colon cancer
LK | Left kidney: 4 cm mass. Right kidney: simple cyst.
LK | Left renal lesion. Right renal lesion consistent with a simple cyst.
RLL | RLL mass. LUL nodule, likely a granuloma.
all | benign nodule in the left upper lobe
all | The nodule in the left upper lobe is benign.
kidney | kidney cancer with a thrombus in the renal vein
LK | left kidney tumour invading the ascending colon
LK | left renal mass abutting the descending colon
LK | mass with calcifications in the left kidney
all | Body mass index 31, normal tumor markers, lung cancer screening.
all | right lobe of the liver is enlarged
LK | tumor with a small cyst in the left kidney
LK | Multiple cysts in both kidneys and a solid mass in the left one.
colon | colon cancer, body mass index 25
SR | malignant polyp in the sigmoid
all | colon polyp
all | tubular adenoma of the sigmoid
all | The lesion in the right kidney is most likely a cyst
all | likely benign nodule in the RML
all | mass effect on the left kidney
all | renal function is normal
all | left kidney
all | A CT of the kidneys
all | The patient has lungs, kidneys and a colon.
RUL | RLL consolidation, RUL mass
LUL | CHEST:\nLungs: 3.2 cm spiculated mass in the left upper lobe.\nPleura: no effusion.\nABDOMEN:\nLiver: \
    simple cysts.\nKidneys: unremarkable.\nColon: diverticulosis.\nIMPRESSION:\nLUL mass, likely primary lung \
    cancer.
"""


@cases(OTHER_FINDINGS)
def test_other_findings_are_no_tumour(expected, text):
    assert read(text)["sites"] == expected


SEATS = r"""
SR | There is circumferential wall thickening of the sigmoid colon with a 5.5 cm enhancing mass, likely adenocarcinoma.
DC | Stricture of the descending colon with an associated mass.
AC | Wall thickening of the cecum and a 4 cm mass.
SR | Sigmoid wall thickening, with a polypoid mass and enlarged nodes.
LLL | Consolidation of the left lower lobe containing a mass.
RUL | Atelectasis of the right upper lobe with a central mass.
LK | Cystic lesion of the left kidney with an enhancing nodule.
LUL | Opacity in the left upper lobe suspicious for malignancy.
LUL | LUL opacity, likely carcinoma.
LK | Cyst of the left kidney, suspicious for RCC.
SR | Local recurrence at the anastomosis in the rectum confirmed on this scan.
SR | Recurrence at the rectal anastomosis.
SR | Carcinoma in a polyp of the sigmoid.
RUL | Adenocarcinoma within a scar in the right upper lobe.
LK | RCC in a cyst of the left kidney.
LK | Wall thickening of the sigmoid and a left renal mass.
AC | Circumferential wall thickening of the ascending colon over 6 cm, consistent with adenocarcinoma.
SR | Wall thickening of the sigmoid, irregular, 5 cm long, suspicious for carcinoma.
SR | The thickening of the sigmoid is consistent with carcinoma.
SR | Ulcer of the sigmoid, deep, in keeping with malignancy
DC | Descending colon stricture, shouldered, consistent with carcinoma, proximal dilatation.
TC | Stricture of the transverse colon measuring 4 cm, likely malignancy
LUL | Opacity in the left upper lobe, spiculated, suspicious for malignancy
LLL | Consolidation of the LLL measuring 4 cm, suspicious for adenocarcinoma
any | Bladder wall thickening, 3 cm, suspicious for carcinoma
any | Hydronephrosis of the left kidney, mild, likely due to cancer
any | Thickening of the sigmoid, more likely diverticulitis than carcinoma
none | Stricture of the descending colon, smooth, not consistent with carcinoma
none | Consolidation in the LLL, liver lesion suspicious for malignancy
all | Wall thickening of the sigmoid, 4 cm, likely due to diverticulitis
all | Thickening of the sigmoid, less likely carcinoma
any | Wall thickening of the gallbladder with a mass.
any | Emphysema of both lungs and a mass.
any | Pneumonia of the left lower lobe and cancer.
any | Pulmonary embolism with a mass.
any | Chest pain with a mass.
any | Hydronephrosis of the left kidney due to cancer
any | Cancer in a patient with emphysema of both lungs
any | Cancer in a lung transplant recipient
LLL | Nodule within a consolidation in the left lower lobe.
LK | left renal cyst with an enhancing nodule
none | left kidney mass, right renal cyst. The mass is no longer visible.
any | A mass and a cyst of the left kidney.
lung | Pneumonia of the left lower lobe with NSCLC.
none | No recurrence at the anastomosis in the rectum.
none | Wall thickening of the sigmoid without a mass.
all | Family history: carcinoma in a polyp of the sigmoid
"""


@cases(SEATS)
def test_a_tumour_is_where_the_finding_is_that_holds_or_shows_it(expected, text):
    assert read(text)["sites"] == expected


SPECIMENS = r"""
LK | Specimen: left radical nephrectomy. Clear cell renal cell carcinoma, 95 mm, pT3a pNX.
LK | Specimen: laparoscopic left partial nephrectomy. Papillary RCC, 21 mm.
LK | Specimen: left nephrectomy. Tumour size 95 mm. Clear cell RCC.
RUL | Specimen: right upper lobectomy. Adenocarcinoma, 30 mm, pT2a.
LUL | Left upper lobectomy specimen shows squamous cell carcinoma.
LLL | Specimen from left lower lobectomy showed SCC, 4 cm
left_lung | Specimen: left pneumonectomy. NSCLC, pT3.
RLL | Specimen: wedge resection of the right lower lobe. Adenocarcinoma.
right_colon | Right hemicolectomy specimen: adenocarcinoma, pT3 N1.
right_colon | Colon, right hemicolectomy: adenocarcinoma.
left_colon | SPECIMEN: LEFT HEMICOLECTOMY. DIAGNOSIS: ADENOCARCINOMA
SR | Sigmoidectomy specimen: moderately differentiated adenocarcinoma.
SR | Anterior resection specimen. Adenocarcinoma, pT2 N0.
SR | Rectal resection specimen: adenocarcinoma
SR | Specimen: sigmoid resection. Adenocarcinoma pT3.
RUL | Specimen: left nephrectomy. Emphysema and a mass in the right upper lobe.
LK | Recurrence in the left nephrectomy bed.
LLL | Recurrence at the left lower lobectomy site.
RUL | Recurrent tumour at the right upper lobectomy stump.
kidney | s/p left nephrectomy for RCC, mass in the nephrectomy bed
SR | Liver resection specimen: metastasis from the sigmoid cancer
all -LK | Specimen: left nephrectomy. No tumour.
all | Specimen: left nephrectomy. Oncocytoma.
none | Left thyroid lobectomy specimen: papillary carcinoma.
none | Specimen: mastectomy. Ductal carcinoma.
none | s/p left nephrectomy 2010, specimen showed RCC, no recurrence
none | No recurrence in the left nephrectomy bed.
none | s/p lobectomy for NSCLC, no mass in the lobectomy bed
RK | Previous left nephrectomy; the nephrectomy bed is clear. Mass in the right kidney.
RK | Left nephrectomy: oncocytoma. Right kidney: RCC
"""


@cases(SPECIMENS)
def test_a_specimen_and_the_bed_it_left_are_places(expected, text):
    assert read(text)["sites"] == expected


SIDES_BEHIND = r"""
RK | Metastatic kidney cancer, right-sided, lung deposits.
RK | Kidney cancer on the right, lung deposits.
RK | kidney cancer (right), lung mets
RK | Renal cell carcinoma, right, lung and bone mets
LK | Kidney tumour, 5 cm, left-sided, adrenal normal
left_lung | Lung cancer, left, kidney cyst
left_lung | Lung cancer, metastatic, left.
right_colon | Colon cancer, metastatic, right-sided.
right_colon | colon cancer, stage IV, right-sided, liver mets
RK lung | Kidney tumour, right, lung nodule 5 mm
left_lung | mass, left, lung
left_lung | cancer, left, lung, 62 years
LUL | lung cancer, left, upper lobe mass
lung | left, right lung masses
lung | Lung cancer, metastatic, left kidney and liver
kidney | RCC with lung metastases, right-sided
"""


@cases(SIDES_BEHIND)
def test_a_side_behind_a_tumour_is_the_tumours_and_not_the_next_findings(expected, text):
    assert read(text)["sites"] == expected


STAGED = r"""
SR | Tis of the sigmoid colon, N0, M0.
SR | pTis, sigmoid colon
SR | cTis of the rectum, N0 M0.
SR | T3N1M0 of the rectum, liver clear
LK | T1 of the left kidney, no metastases.
LLL | Stage T2 of the left lower lobe, no pleural effusion
LUL | lung cancer, T2 of the left upper lobe
lung | Metastasis at T4 of the spine, lung cancer
all | 'Tis the left kidney that hurts.
all | Fracture at T4 of the thoracic spine
all | Pain at T4 in the chest
"""


@cases(STAGED)
def test_a_stage_of_a_place_is_a_tumour_there(expected, text):
    assert read(text)["sites"] == expected


BINDING = r"""
LUL | A tumour is seen. It is located in the left upper lobe.
LUL | There is a large tumor, which is situated in the left upper lobe.
LK | Renal cell carcinoma. It is in the left kidney.
LUL | Left lung cancer. It is located in the upper lobe.
LK | Site: left kidney. Histology: clear cell carcinoma.
RLL | sex: F; age: 71; site: RLL
LUL | Adenocarcinoma, left upper lobe, T2N0M0
LUL | The left upper lobe shows a spiculated mass.
LK | In the left kidney there is a 4 cm mass.
LK | Left kidney: 4 cm mass
RUL | Right lung: 3 cm mass in the upper lobe
LK | The left kidney is enlarged by a large tumour.
RK | mass, 4 cm, right kidney
RLL | 62 yo M w/ RLL mass s/o NSCLC
LK | left kidney mass likely RCC
RUL | CT of the chest shows a mass in the right upper lobe.
RUL | 62-YEAR-OLD MALE WITH RIGHT UPPER LOBE MASS NO METASTASES
RLL | pt 70F hx HTN RLL nodule 2 cm
AC | {"sex": "F", "age": 71, "site": "ascending_colon", "t": 2}
LK | <sex>female</sex><site>left kidney</site>
LUL | a large mass in the left\nupper lobe
SR | Tumor located in the rectum, 5 cm from the anal verge.
LK RK | Tumours in both kidneys: one in the left kidney, one in the right kidney.
LK | The patient, whose father died of lung cancer, has a left renal mass.
LK | not only a cyst but also a tumour in the left kidney
RUL | Cancer which started in the right upper lobe
LLL | There is no doubt that this is a cancer of the left lower lobe.
AC | EXAM: CT abdomen/pelvis\nHISTORY: 58 F, weight loss, r/o malignancy\nFINDINGS: Circumferential mass in the \
    cecum measuring 6.1 cm. Several enlarged regional lymph nodes. No liver lesions.\nIMPRESSION: Cecal \
    carcinoma, T3N1.
LK | Findings: The lungs are clear. No pleural effusion. The liver, spleen and pancreas are unremarkable. There \
    is a 5.1 cm enhancing mass in the interpolar region of the left kidney. No lymphadenopathy. Impression: Left \
    renal mass, likely RCC.
RLL | Male\n62\nRLL mass\nNo mets
SR | The primary site is the rectum.
DC | tumor location - descending colon
RLL | tumor_site=right_lower_lung, sex=male, age=55
SR | Cancer: yes. Location: rectum. Stage: T2.
LK | The tumor is in the kidney. It is on the left.
RK | The tumor, which is large, arises from the right kidney.
RLL | A huge, necrotic tumour fills the right lower lobe.
LK | there's no tumor in the colon, however there's a big one in the left kidney
LK | normal right kidney, tumour in the left one
RK | left kidney normal; right: 4cm mass
RUL | Kidneys: normal. Colon: normal. Lungs: 2 cm nodule, right apex.
LK | generate a CT of a 40 year old woman with a large left kidney tumor
"""


@cases(BINDING)
def test_a_place_counts_where_it_belongs_to_a_tumour(expected, text):
    assert read(text)["sites"] == expected


METASTASES = r"""
colon | colon cancer with lung and liver metastases
colon | Colon cancer metastatic to the right kidney.
kidney | renal cell carcinoma metastatic to lung
kidney | RCC with pulmonary metastases
colon | metastatic colon cancer
lung | metastatic lung cancer
colon | colon cancer which has spread to the liver and lungs
LK | Left renal cell carcinoma with bone, lung and brain mets.
any | lung metastases
any | Multiple metastatic nodules in both lungs.
any | metastatic disease
colon | lung metastases from colon cancer
LK | Pulmonary metastases from a tumour in the left kidney.
colon | multiple pulmonary nodules consistent with metastases; colon cancer
none | breast cancer with lung metastases
kidney | Lung lesion which turned out to be a metastasis of renal cell carcinoma.
colon | The lung mass is a metastasis from colon cancer.
SR | lung nodules, likely metastases from the known rectal cancer
kidney | Left lower lobe metastasis of a renal cell carcinoma
LK | Multiple bilateral pulmonary metastases. Primary: left kidney.
SR | Metastases in both lungs from a rectal primary
colon | Cancer has spread from the colon to both lungs.
left_lung | cancer of the left lung with metastases in the right lung
AC | Peritoneal carcinomatosis from a cecal adenocarcinoma
any | cancer of unknown origin with lung metastases
any | metastasis in the left kidney
"""


@cases(METASTASES)
def test_the_organ_of_a_metastasis_is_not_the_primary(expected, text):
    assert read(text)["sites"] == expected


ELSEWHERE = r"""
none | hepatocellular carcinoma
none | pancreatic cancer
none | Breast cancer in a 50-year-old woman.
none | brain tumour
none | prostate cancer
none | bladder tumor
none | left adrenal mass
none | Gastric carcinoma.
none | lymphoma
none | hepatocellular carcinoma in the right lobe of the liver
none | Liver: 4 cm tumour in the right lobe
none | Hepatoma of the right lobe.
none | thyroid nodule in the left lobe
none | small bowel cancer
none | glioma in the left temporal lobe
LK | prostate cancer and a left renal mass
RUL | Breast cancer, now a second tumour in the right upper lobe.
none | Pancreatic cancer. The tumour measures 4 cm.
none | esophageal cancer invading left main bronchus
none | chest wall tumor
none | melanoma metastatic to the lung
none | lymphoma with lung involvement
none | breast cancer but no lung cancer
colon | gastric and colon cancer
RUL | leukemia patient with a nodule in RUL
LK | hepatic hemangioma and a left kidney tumour
"""


@cases(ELSEWHERE)
def test_a_tumour_of_another_organ_is_none_of_ours(expected, text):
    assert read(text)["sites"] == expected


NEGATION = r"""
none | No tumour.
none | no evidence of malignancy
none | The patient has no cancer.
none | negative for malignancy
none | She is free of cancer.
none | Cancer was ruled out.
none | A tumour was not found.
none | There is no sign of a tumor.
none | Never had cancer.
none | Normal CT.
none | The CT scan is unremarkable.
none | A healthy 30-year-old woman
none | NAD
none | no abnormality detected
none | Tumor: none
none | malignancy: absent
none | The mass is no longer visible.
none | absence of tumour
none | denies cancer
none | without tumor
none | Lungs: clear. Kidneys: unremarkable. Colon: no tumour.
none | The tumour has resolved.
none | no mass, nodule or tumour
none | Neither mass nor nodule.
all -lung | no tumour in the lungs
all -lung | Lungs are clear.
all -lung | no lung cancer
all -lung | Clear lungs.
all -kidney | kidneys unremarkable
all -kidney | Both kidneys are normal.
all -lung -kidney | no tumour in the lungs or kidneys
all -lung -kidney | No mass in the lungs, no mass in the kidneys.
all -LK | no mass in the left kidney
all -LK | left kidney is normal
right_lung | lung cancer, not in the left lung
right_lung | lung cancer sparing the left lung
RK | tumour of the kidney; left kidney is normal
RK | renal tumour in the right kidney, not the left
kidney colon | a tumour, but not in the lungs
LK | no tumour except in the left kidney
LK | Lungs are clear, but there is a mass in the left kidney.
LK | The CT is normal except for a mass in the left kidney.
LK | no pleural effusion, 3 cm mass in the left kidney
LK | No pneumothorax or effusion, left renal mass.
colon | He does not have lung cancer but colon cancer.
colon | No lung cancer. Colon cancer.
colon | not lung cancer but colon cancer
colon | non-smoker with colon cancer
colon | no known allergies, colon cancer
lung | lung cancer without metastases
lung | Lung cancer. No lymphadenopathy. No distant metastases.
lung | Non-metastatic lung cancer
LK | left renal mass, no other tumour
LK | 4 cm left renal mass. No liver tumour. Colon normal.
LK | Left renal mass. No history of malignancy.
RLL | RLL mass. The remaining lungs are clear.
LK | No change in the left renal mass.
any | no doubt a tumour
lung kidney | not only lung cancer but also kidney cancer
LK | Kidneys normal in size. Mass in the left kidney.
none | This is not cancer.
none | Tumour: no. Age 45. Male.
none | Tumour status: negative
none | Malignancy: no evidence
none | make a scan without any tumors
none | you won't find any tumor here
none | no definite evidence of malignancy
none | normal CT of the chest, abdomen and pelvis
none | The colon, kidneys and lungs are all normal.
none | no organ shows a tumour
none | lungs, kidneys and colon are tumor-free
none | no cancer but a cyst in the left kidney
none | previously seen RUL mass has disappeared
none | A mass was seen in the left kidney. It was later ruled out.
all -lung -kidney | Neither the lungs nor the kidneys contain a tumour.
all -lung | not a single tumor was found in either lung
all -kidney | neither kidney shows a tumour
left_lung | no cancer in the right lung, cancer in the left lung
right_lung | A tumor in the right lung, none in the left.
right_lung | He has no tumour in his left lung, only in the right.
right_lung | The left lung is tumour-free but the right lung has cancer.
RK | While the left kidney is unremarkable, the right kidney contains a tumour.
RK | there isn't a tumor in the left kidney, it's in the right kidney
RK | The left kidney is surgically absent. The right kidney contains a 4cm solid mass.
RK | colon free of tumour, kidney tumour on right
RK | no extension of the tumour of the right kidney into the colon
SR | The colon is normal except for the sigmoid, where there is a mass.
RML | no mass except a small nodule in the RML
LLL | Neither kidney is affected, and the colon is clear, yet a nodule is found in the left lower lobe.
LUL | There is no mass in the right upper lobe, right middle lobe, or right lower lobe; a mass is present in the \
    left upper lobe.
lung | It's not colon cancer, it's lung cancer
lung | No regional lymph node metastasis, lung cancer
colon | the cancer is not in the kidney but in the colon
colon | tumor neither in the lungs nor in the kidneys
kidney colon | a tumor that is not in the lung
RLL | CT negative for pulmonary embolism. RLL mass.
LK | RCC on the left without renal vein thrombus
"""


@cases(NEGATION)
def test_a_denial_reaches_as_far_as_its_clause(expected, text):
    assert read(text)["sites"] == expected


DOUBT = r"""
LK none | cannot exclude a tumour in the left kidney
LK none | possible tumour in the left kidney
LK none | A tumour of the left kidney cannot be ruled out.
RLL none | ?RLL mass
RLL none | RLL mass?
LUL none | Rule out LUL tumour.
lung none | r/o lung cancer
LK none | question of a left renal mass
LK none | Is there a tumour in the left kidney?
LK none | There may be a mass in the left kidney.
LK none | either no tumor or a tumor in the left kidney
LUL none | mass or consolidation in the left upper lobe
LK none | Left renal tumour is unlikely.
all | possible tumour
RUL | RUL mass suspicious for cancer
LK | suspected tumour in the left kidney
LK | probable RCC of the left kidney
LK | likely left renal cell carcinoma
RUL | Mass in the right upper lobe, possibly malignant.
LUL RUL | either a left upper lobe or a right upper lobe tumor
none | Indication: rule out lung cancer. Impression: no evidence of malignancy.
LK none | mass in left kidney vs. abscess
RLL none | pneumonia versus tumour in the RLL
RLL none | A malignant process in the right lower lobe cannot be entirely excluded.
LUL none | does not exclude malignancy in the left upper lobe
SR none | possible malignancy of the sigmoid colon vs diverticulitis
kidney none | patient may have a left renal tumor, or a right renal tumor
colon none | ?ca colon
RUL none | Possible lung cancer in the right upper lobe, cannot exclude metastasis.
lung | evaluation of known lung cancer
lung | hardly any doubt that this is lung cancer
all -lung | Tumour excluded in lungs; suspicion of nothing else.
"""


@cases(DOUBT)
def test_doubt_allows_no_tumour_as_well(expected, text):
    assert read(text)["sites"] == expected


OTHER_TIMES_AND_PEOPLE = r"""
all | mother had colon cancer
all | Family history of renal cancer.
all | his father died of lung cancer
all | FHx: colon ca
all | Family history: lung cancer (father), colon cancer (mother).
all | Colon cancer in his mother.
all | My father is 72 and had lung cancer, and I am 40.
left_lung | My mother had colon cancer and I am 55 with a mass in the left lung.
LK | My mother had lung cancer, I have a left kidney tumour.
colon | Her mother had breast cancer, and she has colon cancer.
colon | Colon cancer. Family history of lung cancer.
colon | history of colon cancer
colon | h/o colon ca
none | history of colon cancer, resected in 2010
none | s/p left nephrectomy for RCC, no recurrence
none | Lung cancer in complete remission.
none | Colon cancer was removed in 2012.
none | lung cancer survivor
none | History of lung cancer, treated. No evidence of disease.
none | RCC s/p nephrectomy
none | Previously had colon cancer, now disease-free.
RK | history of colon cancer, resected in 2010, now with a mass in the right kidney
LK | left renal mass, scheduled for nephrectomy
SR | Sigmoid cancer, resection is planned.
RLL | s/p RUL lobectomy for NSCLC, new mass in the RLL
all | The man's wife has colon cancer.
all | no family history of colon cancer
all | Worried about colon cancer because of family history
all | at risk for lung cancer
all | paternal aunt with lung cancer
colon | Father: lung cancer. Patient: colon cancer.
SR | A 45-year-old father of three was diagnosed with rectal cancer
LUL | patient whose mother had breast cancer and who now has lung cancer in the LUL
none | Wife has breast cancer; patient is healthy.
none | he was cured of his lung cancer
none | in remission from lung cancer
none | treated for lung cancer 5 years ago
none | had a tumor removed from the left kidney
none | sigmoid colectomy for cancer
none | No evidence of residual lung cancer after right upper lobectomy.
none | Status post resection of sigmoid carcinoma. No evidence of recurrent or metastatic disease.
none | No history of cancer. CT performed for kidney stones.
colon | lung cancer in complete remission; new colon cancer
colon | recurrent colon cancer
SR | Sigmoid cancer resected 2015. Now local recurrence.
SR | Anterior resection for rectal cancer 2018; local recurrence.
AC | s/p right hemicolectomy for cecal cancer, anastomotic recurrence
LLL | Left lower lobe cancer, resected 2019. Recurrence at the stump.
kidney | Left nephrectomy for RCC in 2012. Locally recurrent tumour, 3 cm.
LK SR | rectal cancer resected 2015, local recurrence, now left renal mass
RUL none | RUL carcinoma, resected. Possible local recurrence.
none | Lung cancer resected 2010; no local recurrence.
any | Lung cancer resected 2010; recurrence.
all | Mother had rectal cancer resected, local recurrence.
LLL | Follow-up after right nephrectomy for renal cell carcinoma; no local recurrence, new 2 cm nodule in left \
    lower lobe
RUL | The RUL nodule is unchanged. The left renal mass has resolved.
right_lung | colon cancer s/p resection with recurrence in the right lung
left_lung | patient previously treated for colon cancer now shows a tumor in the left lung
LK | 78M h/o CRC s/p colectomy, p/w hematuria, found to have L renal mass 5 cm
RUL | 58 yo F w/ hx of breast CA s/p mastectomy 2010, now w/ 2 cm RUL nodule
RK | Recurrent tumour in the right kidney following partial nephrectomy in 2019.
RK | Local recurrence in the right kidney after partial nephrectomy in 2019.
RK | The right kidney shows a recurrence after partial nephrectomy.
LUL | Recurrence in the left upper lobe after segmentectomy
LLL | Relapse in the left lower lobe since lobectomy in 2018
SR | Recurrent adenocarcinoma in the rectum after low anterior resection
RK none | Possible recurrence in the right kidney after partial nephrectomy
none | No recurrence in the right kidney following partial nephrectomy
RK | Tumor recurrence in the right kidney after nephrectomy for RCC in 2012.
LLL | Recurrence in the left lower lobe after lobectomy for lung cancer.
none | No recurrence after nephrectomy for RCC
none | Monitoring for local recurrence after right nephrectomy.
none | Right kidney tumour after partial nephrectomy, no recurrence
none | Clear cell carcinoma of the right kidney after radical nephrectomy
none | lung cancer with recurrent effusion after lobectomy
LK | mass in the left kidney after right nephrectomy
RK | RCC right kidney s/p left nephrectomy
SR | sigmoid cancer after right hemicolectomy
none | left renal cell carcinoma s/p left radical nephrectomy
none | RUL cancer with left pleural effusion s/p lobectomy
none | RCC of the kidney s/p left nephrectomy
none | caecal cancer after right hemicolectomy
RK | s/p nephrectomy for RCC and there is a mass in the right kidney
LK | resected colon cancer and a mass in the left kidney
none | resected lung cancer and colon cancer
none | I had my left kidney taken out for cancer ten years ago and all my scans since, including this one, have been \
    clear.
none | My right kidney was taken out because of cancer in 2015.
none | They took out part of my bowel for cancer five years ago
none | left kidney removed in 2010 for renal cell carcinoma
none | A tumour was taken out of my left kidney
RK | My left kidney was taken out for cancer but I now have a tumour in my right kidney
colon | My womb was taken out for cancer and there is a tumour in my bowel
LK | A sample was taken out of the left kidney tumour
LK | My left kidney is going to be taken out for cancer
RK | My right kidney should be taken out due to a tumour
kidney | Doctors say my kidney must be taken out because of cancer
LK | Left renal mass, should be resected
SR | A stent was removed because of a tumour in the sigmoid
any | The catheter was removed from the left kidney because of a tumour
lung | unresectable lung cancer
lung | lung cancer, on chemotherapy
RML | referred for resection of a RML tumour
"""


@cases(OTHER_TIMES_AND_PEOPLE)
def test_what_is_over_or_another_persons_does_not_count(expected, text):
    assert read(text)["sites"] == expected


FORMS = r"""
RK | organ: kidney; side: right; size: 6.1 cm; sex: male; age: 45
left_lung | organ: lung; side: left; size: large
SR | Organ: rectum. Size: 4 cm
TC | organ: colon; segment: transverse; size: 3 cm
colon | Organ = colon; size = 3 cm; T = 2
LK | organ: kidney; side: left; size: 6 cm; nodes: normal
all | organ: kidney; side: right
all | organ: kidney; side: right; finding: cyst; size: 3 cm
all | Kidney: right. Size: 11 cm.
all | organ: liver; size: 6 cm
none | organ: kidney; side: right; finding: normal
none | organ: kidney; side: left; size: 10 cm; finding: normal
"""


@cases(FORMS)
def test_the_size_that_a_form_gives_is_that_of_a_tumour_in_its_organ(expected, text):
    assert read(text)["sites"] == expected
