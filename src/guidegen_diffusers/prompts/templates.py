"""The styles of the writer: one line each, and the names of sets of sites.

Sentences are separated by " / " and the parts of a sentence by " + ". Slots in braces are filled by writer.py, with a
capital letter where the slot has one; a part whose slot has nothing to say is left out, and a sentence goes with its
first part. The first line is the canonical style, after the sentences of the GuideGen paper.
"""

from __future__ import annotations

from .attributes import COLON, KIDNEY, LUNG, SITES


__all__ = ["BRIEF", "SITE_NAMES", "TEMPLATES"]

CANONICAL = (
    "The patient is {person} / In this CT scan, the patient's condition is described as {tumor}"
    " + , with a TNM staging of {tnm}"
)
TEMPLATES = [
    CANONICAL,
    *"""
This patient is {person} / In this medical CT scan, the clinical status can be described as {tumor} + , of stage {tnm}
The patient is {aged} / In this imaging, the patient's condition is described as {tumor} + , TNM staging {tnm}
A CT scan of {exact} / It shows {tumor} + , staged {tnm}
CT of {aged} / The scan shows {tumour} + , TNM {tnm}
{Exact} / CT reveals {tumor} + ({tnm})
{Aged} / CT demonstrates {mass} + , stage {tnm}
{Brief} / {Abbreviated} + , {tnm}
Pt {brief} / Imaging: {abbreviated} + , {spaced}
Pt is {exact} / Imaging shows {mass} + , {spaced}
INDICATION: {exact} / FINDINGS: {tumor} / STAGE: {spaced}
CLINICAL HISTORY: {exact} / FINDINGS: There is {mass} / IMPRESSION: {tumor} + , {tnm}
CLINICAL INFORMATION: {aged} / REPORT: There is {tumour} / TNM: {spaced}
PATIENT: {person} / IMPRESSION: {malignancy} + , {commas}
Patient: {decade} / Diagnosis: {tumour} + , {tnm}
sex: {sex} / age: {years} / race: {race} / finding: {tumor} / stage: {tnm}
Sex = {sex} / Age = {years} years / Race = {race} / Finding = {mass} / TNM = {spaced}
Demographics: {person} / Disease: {malignancy} + , {tnm}
Thank you for referring {exact} / The CT shows {tumour} + , which we stage as {tnm}
Dear colleague / I saw {exact} / CT shows {tumour} + , staged {commas}
I had the pleasure of seeing {decade} / There is {tumor} on CT / The stage is {tnm}
Re: {exact} / We found {malignancy} + , TNM {spaced}
{Exact} / Known findings: {tumor} / Staging: {commas}
We report on {aged} / On CT there is {tumour} + , corresponding to {tnm}
Here is the CT of {decade} / One sees {tumor} + , with a TNM stage of {tnm}
{Decade} / The images show {tumour} + and the TNM stage is {tnm}
This is {exact} / The torso CT shows {mass} + , {tnm} disease
Subject: {person} / Result: {tumor} + , {words}
{Aged} was scanned / The result is {tumor} + , {words}
{Exact} underwent CT / It showed {malignancy} + , {words}
{Exact} was examined / The examination shows {tumour} + , {words}
This scan belongs to {aged} / The clinical picture is {tumor} + ; {tnm}
A case of {exact} / The CT features {malignancy} + [{commas}]
Tumour board: {exact} / Discussed: {tumour} + , {tnm}
The scan was taken of {decade} / Radiologists describe {mass} + , {spaced}
Synthetic case: {person} / Condition: {tumor} + ; stage {spaced}
Draw {exact} / The CT should show {tumor} + , {tnm}
Generate the CT of {aged} / Show {mass} + , {spaced}
{Person} / Oncological finding: {malignancy} + , stage {tnm}
ID: {brief} / CT: {abbreviated} / {Words}
{Brief} / CT today / {Abbreviated} + , {tnm}
Case: {aged} / Finding: {tumour} + , TNM classification {commas}
The CT was made of {exact} / The report speaks of {tumour} + , {spaced}
Person scanned: {person} / The condition is described as {tumor} + , {words}
{Exact} presented to the clinic / The diagnosis is {malignancy} + , {tnm}
""".strip().splitlines(),
]
BRIEF = TEMPLATES[7]  # takes over where the canonical sentence would be long

SITE_NAMES = {  # the first that fits what is left of a set is taken
    LUNG: "lung",
    frozenset(SITES[:2]): "left lung",
    frozenset(SITES[2:5]): "right lung",
    frozenset({"left_upper_lung", "right_upper_lung"}): "upper lobe of either lung",
    frozenset({"left_lower_lung", "right_lower_lung"}): "lower lobe of either lung",
    frozenset({"left_upper_lung"}): "left upper lobe",
    frozenset({"left_lower_lung"}): "left lower lobe",
    frozenset({"right_upper_lung"}): "right upper lobe",
    frozenset({"right_middle_lung"}): "right middle lobe",
    frozenset({"right_lower_lung"}): "right lower lobe",
    KIDNEY: "kidney",
    frozenset({"left_kidney"}): "left kidney",
    frozenset({"right_kidney"}): "right kidney",
    COLON: "colon",
    frozenset({"ascending_colon", "transverse_colon"}): "right colon",
    frozenset({"descending_colon", "sigmoid_or_rectum"}): "left colon",
    frozenset({"ascending_colon"}): "ascending colon",
    frozenset({"transverse_colon"}): "transverse colon",
    frozenset({"descending_colon"}): "descending colon",
    frozenset({"sigmoid_or_rectum"}): "sigmoid colon or rectum",
}
