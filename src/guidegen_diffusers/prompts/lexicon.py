"""The words of radiology and oncology that the reader knows: tables, and no logic.

Each table names one kind of word, by value. Underscores join the words of a phrase, PLURALS take an s by themselves,
and British spelling folds to American (`spelling.fold`), so each word stands here once. The longest phrase wins:
"small bowel" is an organ and no size, "tumor markers" is no tumor. What is not here is an ordinary word.
"""

from __future__ import annotations


__all__ = ["FALSE_FRIENDS", "LEXICON", "MENDED", "PLURALS"]

SIDE = {
    "left": "left lt leftsided left_sided left_side left_hand_side lfet letf",
    "right": "right rt rightsided right_sided right_side right_hand_side",
    "both": "both bilateral bilaterally bilat b/l either both_sides either_side",
}

# Where in an organ, and the nouns that take a part or a side; see places.py for the sites they stand for.
PART = {
    "upper": "upper superior uppermost",
    "middle": "middle",
    "lower": "lower inferior lowermost",
    "ascending": "ascending ascendant",
    "transverse": "transverse transversal",
    "descending": "descending descendant",
}
NOUN = {
    "lobe": "lobe lobes lobar",
    "zone": "zone zones field fields lung_field lung_fields",
    "pole": "pole poles interpolar",
    "apex": "apex apices apical top",
    "base": "base bases basal basilar bibasal bibasilar bottom",
}
ORGAN = {
    "lung": """lung pulmonary pulmonic bronchus bronchi bronchial bronchogenic bronchopulmonary endobronchial
        intrapulmonary hilum hila hilar perihilar""",
    "kidney": "kidney renal nephric intrarenal renal_pelvis kidney_pelvis renal_hilum renal_sinus",
    "colon": """colon colonic colorectal colo_rectal colorectum large_bowel large_intestine large_intestinal
        large_gut bowel gut intestine intestinal hemicolon""",
    "chest": "chest thorax thoracic intrathoracic",
    "abdomen": "abdomen abdominal abd belly intraabdominal intra_abdominal",
    "pelvis": "pelvis pelvic",
    "other": """liver hepatic intrahepatic pancreas pancreatic breast mammary brain cerebral cerebellar cerebellum
        cranial intracranial prostate prostatic bladder urinary_bladder vesical adrenal adrenal_gland suprarenal
        stomach gastric esophagus esophageal gastroesophageal spleen splenic bone bony osseous skeletal skeleton skin
        cutaneous subcutaneous thyroid parathyroid ovary ovarian adnexa adnexal uterus uterine endometrium endometrial
        cervix cervical testis testes testicle testicular larynx laryngeal pharynx pharyngeal nasopharynx
        nasopharyngeal oropharynx oropharyngeal hypopharynx hypopharyngeal tongue oral mouth lip tonsil tonsillar
        salivary parotid head_and_neck neck throat gallbladder gall_bladder biliary bile_duct common_bile_duct
        small_bowel small_intestine small_intestinal small_gut duodenum duodenal jejunum jejunal ileum ileal
        terminal_ileum appendix appendiceal anus anal ureter ureteral ureteric urethra urethral penis penile vulva
        vulvar vagina vaginal thymus thymic pleura pleural mediastinum mediastinal heart cardiac pericardium
        pericardial myocardial trachea tracheal eye ocular orbit orbital retinal nose nasal sinonasal sinus spine
        spinal vertebra vertebrae vertebral rib femur femoral humerus tibia sternum sternal iliac sacrum sacral skull
        soft_tissue muscle muscular retroperitoneum retroperitoneal peritoneum peritoneal omentum omental mesentery
        mesenteric diaphragm chest_wall thoracic_wall abdominal_wall body_wall aorta aortic ascending_aorta
        descending_aorta abdominal_aorta thoracic_aorta ascending_thoracic_aorta descending_thoracic_aorta vena_cava
        inferior_vena_cava superior_vena_cava ivc svc renal_vein renal_artery pulmonary_artery pulmonary_arteries
        pulmonary_vein portal_vein pituitary meninges meningeal spinal_cord nerve blood bone_marrow marrow leg arm
        hand foot knee shoulder limb lower_limb upper_limb extremity lower_extremity upper_extremity thigh hip axilla
        axillary groin inguinal buttock face scalp temporal frontal parietal occipital caudate quadrate base_of_tongue
        base_of_the_tongue tongue_base base_of_skull base_of_the_skull skull_base upper_abdomen lower_abdomen
        perinephric perirenal pararenal sigmoid_sinus head back lower_back upper_back gi_tract upper_gi
        upper_gastrointestinal urinary_tract left_ventricle right_ventricle left_atrium right_atrium
        left_upper_quadrant right_upper_quadrant left_lower_quadrant right_lower_quadrant white_matter gray_matter
        duct ductal ampulla ampullary periampullary hepatobiliary cns clavicle scapula acetabulum placenta""",
}
PLACE = {  # organ, side, part
    ("lung", "left", "upper"): "lul lingula lingular",
    ("lung", "left", "lower"): "lll",
    ("lung", "right", "upper"): "rul azygos_lobe",
    ("lung", "right", "middle"): "rml",
    ("lung", "right", "lower"): "rll",
    ("lung", None, "upper"): "superior_sulcus pancoast",
    ("lung", "left", None): "left_main_bronchus left_mainstem left_mainstem_bronchus",
    ("lung", "right", None): "right_main_bronchus right_mainstem right_mainstem_bronchus bronchus_intermedius",
    ("colon", None, "ascending"): "cecum cecal coecum ileocecal ileocecal_valve ileocecal_junction ascending_colon",
    ("colon", None, "transverse"): "transverse_colon",
    ("colon", None, "descending"): "descending_colon",
    (
        "colon",
        None,
        "sigmoid",
    ): """sigmoid sigmoidal sigmoid_colon rectum rectal
        rectosigmoid recto_sigmoid rectosigmoidal rectosigmoid_junction rectosigmoid_colon anorectal mesorectum
        mesorectal sigmoid_flexure""",
    ("colon", None, "hepatic flexure"): "hepatic_flexure right_flexure right_colic_flexure",
    ("colon", None, "splenic flexure"): "splenic_flexure left_flexure left_colic_flexure",
    ("colon", None, "right"): "proximal_colon",
    ("colon", None, "left"): "distal_colon",
}

# Tumors: how firmly the word says so, and the organ that it names.
TUMOR = {
    ("strong", None): """tumor tumoral cancer cancerous carcinoma adenocarcinoma adenoca adeno_ca adeno_carcinoma
        malignancy malignant neoplasm neoplasia neoplastic sarcoma carcinoid scc squamous_cell_carcinoma
        squamous_cell_cancer large_cell_carcinoma large_cell_cancer small_cell_carcinoma small_cell_cancer
        clear_cell_carcinoma giant_cell_carcinoma spindle_cell_carcinoma tumor_mass malignant_tumor malignant_neoplasm
        cancerous_tumor recurrence relapse residual_disease recurrent_disease active_disease""",
    ("weak", None): """mass nodule lesion growth lump neoformation space_occupying_lesion coin_lesion mass_lesion
        soft_tissue_mass soft_tissue_nodule soft_tissue_lesion""",
    ("strong", "lung"): """nsclc sclc non_small_cell nonsmall_cell non_small_cell_carcinoma non_small_cell_cancer
        non_small_cell_ca nonsmall_cell_carcinoma small_cell_lung_cancer small_cell_lung_carcinoma oat_cell
        oat_cell_carcinoma luad lusc bronchioloalveolar_carcinoma bronchoalveolar_carcinoma""",
    ("strong", "kidney"): """rcc ccrcc prcc chrcc renal_cell renal_cell_carcinoma renal_cell_cancer renal_cell_ca
        renal_cell_tumor clear_cell_renal clear_cell_renal_cell_carcinoma clear_cell_renal_carcinoma clear_cell_rcc
        hypernephroma grawitz grawitz_tumor nephroma wilms wilms_tumor nephroblastoma""",
    ("strong", "colon"): "crc mcrc",
    ("elsewhere", None): """hepatocellular hepatocellular_carcinoma hepatocellular_cancer hcc hepatoma hepatoblastoma
        cholangiocarcinoma klatskin klatskin_tumor lymphoma hodgkin leukemia myeloma plasmacytoma melanoma glioma
        glioblastoma gbm astrocytoma meningioma mesothelioma thymoma pheochromocytoma paraganglioma seminoma teratoma
        germ_cell_tumor insulinoma gastrinoma neuroblastoma medulloblastoma retinoblastoma osteosarcoma chondrosarcoma
        liposarcoma leiomyosarcoma rhabdomyosarcoma angiosarcoma gist gastrointestinal_stromal_tumor
        basal_cell_carcinoma basal_cell_cancer pdac urothelial urothelial_carcinoma urothelial_cancer
        transitional_cell_carcinoma tcc ductal_carcinoma lobular_carcinoma invasive_ductal_carcinoma
        invasive_lobular_carcinoma dcis craniopharyngioma schwannoma choriocarcinoma adrenocortical_carcinoma dlbcl""",
}

# Findings that are no tumor of ours; they draw places to themselves. A tumor may lie in a seat or at it, and a feature
# may be one of the tumor's own.
BENIGN = {
    None: """stone calculus calculi nephrolithiasis urolithiasis emphysema pneumonia bronchopneumonia collapse
        diverticulosis diverticulitis diverticula appendicitis pyelonephritis nephritis glomerulonephritis
        nephropathy hydronephrosis hydroureter effusion pneumothorax fibrosis bronchiectasis embolism embolus emboli
        edema hernia abscess hematoma infarct infarction granuloma hemangioma lipoma polyposis hamartoma
        angiomyolipoma oncocytoma fibroma fibroid leiomyoma colitis proctitis volvulus intussusception fracture
        aneurysm infection tuberculosis tb copd asthma bronchitis bronchiolitis pneumonitis failure insufficiency
        disease dysfunction impairment transplant transplantation allograft biopsy function volume capacity artery
        arteries vein vessel injury trauma laceration contusion pain ache tenderness colic cough hemoptysis hematuria
        bleed bleeding hemorrhoid dyspnea breathlessness symptom fever weight_loss inflammation crohns crohn
        hypertrophy hyperplasia enlargement dilatation dilation thrombus thrombosis catheter tube drain clip suture
        implant valve cirrhosis hepatitis steatosis pancreatitis gastritis cholecystitis gallstone diabetes
        hypertension anemia stroke arthritis congestion dialysis atrophy anomaly agenesis malformation constipation
        diarrhea colonoscopy bronchoscopy endoscopy colostomy ileostomy perforation ischemia covid sarcoidosis
        sarcoid silicosis asbestosis syndrome disorder distension gas stool fluid ascites nephrocalcinosis reflux""",
    "seat": """consolidation opacity atelectasis atelectases cyst cystic_lesion scar scarring adenoma polyp ulcer
        diverticulum bulla bullae bleb stent anastomosis""",
    "feature": """calcification necrosis hemorrhage cavitation thickening obstruction stricture ulceration stranding
        spiculation narrowing""",
}
METASTASIS = {
    None: """metastasis metastases metastatic metastasize metastasized metastasizes metastasizing met mets
        oligometastatic oligometastases carcinomatosis secondaries secondary_deposit secondary_lesion secondary_tumor
        deposits disseminated spread spreads spreading metastatic_disease metastatic_dz metastatic_spread
        metastatic_deposits metastatic_lesion metastatic_lesions metastatic_nodule metastatic_nodules metastatic_focus
        metastatic_foci metastatic_involvement distant_disease distant_spread distant_metastasis distant_metastases
        distant_metastatic_disease distant_mets tumor_spread tumor_deposits secondary_lesions secondary_tumors
        secondary_deposits""",
    "denied": "non_metastatic nonmetastatic not_metastatic not_metastasized metastasis_free metastases_free",
}
NODE = {
    None: """node nodes nodal lymph_node lymph_nodes lymphnode lymphnodes lymphadenopathy adenopathy lad ln lns
        nodal_disease nodal_involvement nodal_spread nodal_metastasis nodal_metastases nodal_mets node_involvement
        lymph_node_metastasis lymph_node_metastases lymph_node_involvement lymph_node_mets lymphatic_spread""",
    "denied": "node_negative nodenegative node_free",
}
NORMAL = {
    None: """normal unremarkable clear healthy intact unaffected uninvolved spared sparing spares negative
        inconspicuous clean nad wnl within_normal_limits normal_appearing normal_looking all_clear looks_fine is_fine
        no_abnormality no_abnormalities no_abnormality_detected no_abnormality_seen no_abnormal_finding
        no_abnormal_findings no_pathology no_pathological_finding no_pathological_findings no_pathologic_findings
        no_significant_abnormality no_significant_abnormalities no_focal_abnormality no_acute_abnormality
        no_acute_finding no_acute_findings no_finding no_findings no_significant_finding no_significant_findings
        no_relevant_findings nothing_abnormal nothing_abnormal_detected nil_of_note nothing_of_note
        without_abnormality without_abnormalities without_findings without_pathological_findings free_of_disease
        free_of_abnormality"""
}
NONTUMOR = {
    None: "benign noncancerous non_cancerous nonmalignant non_malignant not_malignant not_cancerous inflammatory"
}

# Words that look like a tumor, a size, a place or a negation and are none.
IDIOM = {
    None: """tumor_marker tumor_markers tumor_board cancer_center cancer_clinic cancer_registry cancer_society
        cancer_research cancer_hospital cancer_ward cancer_unit cancer_specialist cancer_screening cancer_prevention
        cancer_awareness cancer_risk cancer_surveillance cancer_antigen tumor_thrombus tumor_necrosis tumor_invasion
        tumor_extension tumor_infiltration tumor_lysis tumor_rupture tumor_suppressor tumor_free_margin
        tumor_free_margins body_mass_index mass_index body_mass muscle_mass lean_mass bone_mass fat_mass mass_effect
        mass_like masslike tumor_like growth_hormone growth_factor growth_retardation growth_chart growth_pattern
        growth_rate clear_margin clear_margins margins_clear negative_margin negative_margins margins_negative
        clear_cell large_cell small_cell clear_cut normal_size normal_sized normal_in_size normal_contour
        normal_in_contour normal_caliber normal_in_caliber normal_position normal_in_position normal_enhancement
        normal_variant normal_range normal_weight normal_for_age normal_shape normal_blood_pressure normal_in_shape
        normal_in_number normal_saline no_acute_distress non_smoker nonsmoker never_smoker never_smoked not_a_smoker
        does_not_smoke primary_care transverse_process transverse_diameter transverse_plane transverse_section
        transverse_sections transverse_image transverse_images transverse_view transverse_dimension small_amount
        large_amount moderate_amount small_amounts large_amounts small_volume large_volume moderately_differentiated
        right_now right_away right_handed left_handed local_spread locally_spread lung_window lung_windows
        carcinoembryonic_antigen anticancer could_be_seen could_be_identified could_be_detected partial_remission
        partial_response incomplete_remission"""
}
AFFIRMED = {  # negations of something else, which leave the tumor as it is
    None: """no_doubt no_doubt_about without_doubt without_a_doubt without_any_doubt no_question without_question
        not_only not_just not_merely not_yet no_change no_interval_change no_significant_change
        no_significant_interval_change not_changed no_increase no_decrease no_progression no_growth_of
        no_interval_growth_of no_significant_growth_of no_enlargement no_regression not_enlarged not_resectable
        not_operable not_resected not_removed not_treated not_operated not_cured not_resolved not_in_remission
        never_treated never_resected no_response no_treatment no_surgery no_therapy no_chemotherapy no_prior_treatment
        no_previous_treatment no_complications no_invasion no_vascular_invasion no_local_invasion without_invasion
        not_invading no_symptoms without_symptoms incompletely_resected partially_resected partially_treated
        no_improvement without_change without_treatment unresected no_smoking no_alcohol no_allergies
        no_known_allergies no_tumor_thrombus no_tumor_invasion no_tumor_extension not_diagnostic not_confined
        not_limited"""
}

# What takes back, doubts, or speaks of others and of other times; see scopes.py.
NO = {
    None: """no not without w/o denies denied deny never neither nor none nil nothing negative_for free_of free_from
        clear_of devoid_of absence_of lack_of lacks lacking no_longer no_more fails_to failed_to fail_to
        unable_to_find unable_to_see unable_to_identify rather_than instead_of excludes rules_out exempt_from
        excluding outside outside_of false"""
}
SEEN = {
    None: """seen found detected identified visible visualized present evident demonstrated noted observed
        appreciated apparent recognized shown detectable discernible delineated confirmed proven diagnosed"""
}
ABSENT = {None: "absent undetectable invisible is_negative was_negative refuted disproved"}
HEDGE = {
    None: """possible possibly maybe perhaps query question_of questionable questionably potential potentially
        equivocal uncertain whether differential differential_diagnosis ddx may might could may_represent
        might_represent could_represent conceivable conceivably possibility_of chance_of unlikely less_likely
        improbable doubtful unsure if evaluate_for evaluation_for assess_for assessment_for check_for look_for
        looking_for"""
}
UNKNOWN = {None: "unknown unspecified undetermined n/a"}
EXCLUSION = {
    "base": "rule_out exclude r/o ruling_out exclusion_of",
    "past": "ruled_out excluded",
}
TURN = {
    None: """but however although though yet whereas while nevertheless nonetheless otherwise now currently presently
        then today only""",
    "except": "except excepting except_for apart_from aside_from other_than besides save_for with_the_exception_of",
}
OTHER = {
    None: """other another additional further second new else elsewhere synchronous remaining remainder rest residual
        contralateral opposite"""
}
FAMILY = {
    None: """mother father sister brother uncle aunt grandmother grandfather grandparent parent sibling cousin son
        daughter niece nephew relative family familial fhx family_history husband wife spouse mum mom dad maternal
        paternal stepmother stepfather children partner"""
}
PATIENT = {None: "patient pt himself herself individual person subject he she i"}
PAST = {
    None: "history_of h/o hx_of hx history previous previously prior former formerly past known_history_of pmh pmhx"
}
PLAN = {
    None: """scheduled planned plan planning awaiting awaits pending candidate considered recommended refused refuses
        declined declines before preoperative preoperatively preop will to_undergo to_be towards referred requires
        needs must should want wants"""
}
SURGERY = {
    "kidney": "nephrectomy nephroureterectomy heminephrectomy",
    "lung": "lobectomy lobectomies bilobectomy pneumonectomy segmentectomy wedge_resection",
    "colon": """colectomy hemicolectomy sigmoidectomy proctectomy proctocolectomy anterior_resection
        low_anterior_resection polypectomy""",
    "other": """mastectomy prostatectomy gastrectomy cystectomy hysterectomy thyroidectomy splenectomy
        cholecystectomy appendectomy esophagectomy hepatectomy""",
    None: "resection excision removal surgical_removal enucleation surgery operation",
}
REMOVED = {
    None: """resected removed excised enucleated cured eradicated healed resolved regressed disappeared vanished gone
        survived survivor beat taken_out took_out cut_out used_to_have successfully_treated treated_successfully
        fully_treated"""
}
RESOLVED = {  # of the patient, whatever tumor there was
    None: """in_remission remission complete_remission in_complete_remission complete_response disease_free
        tumor_free cancer_free tumorless free_of_cancer free_of_tumor recurrence_free free_of_recurrence ned
        no_disease no_evidence_of_disease no_sign_of_disease no_signs_of_disease without_evidence_of_disease"""
}
TREATED = {None: "treated irradiated ablated completed_treatment completed_therapy"}
NEUTRAL = {
    None: """screening_for screened_for screen_for risk_of risk_for at_risk_of at_risk_for risk_factor_for
        risk_factors_for predisposition_to fear_of afraid_of worried_about prevention_of vaccine_against"""
}
LINK = {
    None: """consistent_with compatible_with suggestive_of suspicious_for suspicious_of representing represents
        represent in_keeping_with c/w s/o likely probable probably presumed presumably indicative_of worrisome_for
        concerning_for turned_out_to_be turns_out_to_be proved_to_be proven_to_be found_to_be characteristic_of
        typical_of diagnostic_of interpreted_as reported_as due_to d/t because_of caused_by secondary_to reflecting"""
}

# Small words, by what they do between a place and a finding.
PREPOSITION = {
    None: """in of within at on inside throughout around near involving involves involve affecting affects affect
        occupying occupies fills filling spans spanning along to from replacing replaces over under through across
        about including confined_to limited_to localized_to localized_in at_the_level_of"""
}
AWAY = {
    None: """invading invades invaded infiltrating infiltrates infiltrated extending extends extended compressing
        compresses abutting abuts displacing displaces adjacent next_to anterior_to posterior_to inferior_to
        superior_to lateral_to medial_to above below behind beneath contacting touching encasing reaching reaches
        invasion_of infiltration_of extension_to extension_into invasion_into beyond distal_to proximal_to
        growing_into grows_into into close_to"""
}
LOCATOR = {
    None: """located situated lies lying sited centered localized arising arises arose originating originates
        originated emanating stemming location site sites primary_site primary_tumor_site tumor_site tumor_sites
        tumor_location cancer_site body_site laterality topography position seated"""
}
VERB = {
    None: """is are was were be been being has have had having shows show showed showing demonstrates demonstrate
        demonstrating reveals reveal revealed revealing contains contain containing harbors harbor harboring appears
        appear appeared remains remain exhibits exhibit displays does do did seems looks suggests suggested indicates
        presents presented bears carries developed develops suffers underwent admitted died measures measuring
        measured describes described became positive involved"""
}
WITH = {None: "with w/ plus together_with along_with accompanied_by"}
LINKED = {
    None: """diagnosed_with presenting_with presents_with presented_with present_with affected_with afflicted_with
        found_with affected_by suffering_from suffers_from suffered_from living_with associated_with"""
}
CONJUNCTION = {"and": "and & as_well_as also but_also", "or": "or vs versus"}
DETERMINER = {"a": "a an some any", "the": "the his her its their this that these those"}
PRONOUN = {None: "it they there which who"}
SCAN = {
    None: """ct scan study examination exam imaging image images findings finding appearances ct_scan tomography cect
        ncct hrct mri pet radiograph xray x_ray cxr ultrasound torso body whole_body checkup organs everything"""
}
SIZE = {
    "small": "small tiny little minute small_sized subcentimeter sub_centimeter subcentimetric sub_cm diminutive",
    "medium": """medium moderate medium_sized moderately_sized moderate_sized mid_sized midsized medium_size
        intermediate_sized intermediate_size moderately_large""",
    "large": "large big bulky sizable sizeable large_sized very_large",
    "huge": "huge giant massive enormous gigantic immense",
}

LEXICON: dict[str, dict] = {
    "side": SIDE,
    "part": PART,
    "noun": NOUN,
    "organ": ORGAN,
    "place": PLACE,
    "tumor": TUMOR,
    "benign": BENIGN,
    "metastasis": METASTASIS,
    "node": NODE,
    "normal": NORMAL,
    "nontumor": NONTUMOR,
    "idiom": IDIOM,
    "affirmed": AFFIRMED,
    "no": NO,
    "seen": SEEN,
    "absent": ABSENT,
    "hedge": HEDGE,
    "unknown": UNKNOWN,
    "exclusion": EXCLUSION,
    "turn": TURN,
    "other": OTHER,
    "family": FAMILY,
    "patient": PATIENT,
    "past": PAST,
    "plan": PLAN,
    "surgery": SURGERY,
    "removed": REMOVED,
    "resolved": RESOLVED,
    "treated": TREATED,
    "neutral": NEUTRAL,
    "link": LINK,
    "preposition": PREPOSITION,
    "away": AWAY,
    "locator": LOCATOR,
    "verb": VERB,
    "with": WITH,
    "linked": LINKED,
    "conjunction": CONJUNCTION,
    "determiner": DETERMINER,
    "pronoun": PRONOUN,
    "scan": SCAN,
    "size": SIZE,
}
PLURALS = ("organ", "tumor", "benign", "family", "surgery")

# Words in which one slip of the pen is mended, and English words that are one slip away and mean themselves.
MENDED = """
tumor cancer carcinoma adenocarcinoma malignancy malignant neoplasm metastasis metastases metastatic nodule lesion
lymphadenopathy kidney renal colon colonic colorectal intestine intestinal sigmoid rectosigmoid rectum rectal cecum
cecal ascending transverse descending flexure hepatic splenic pulmonary bronchial bronchogenic lingula lobar upper
lower middle right hypernephroma nephroblastoma thoracic abdomen abdominal pancreas pancreatic prostate bladder
lymphoma melanoma hepatocellular cholangiocarcinoma mesothelioma esophageal emphysema pneumonia diverticulosis
diverticulitis tumors cancers carcinomas adenocarcinomas malignancies neoplasms nodules lesions kidneys
"""
FALSE_FRIENDS = """
badder canceled cancel cancels canker canter color colors colony colin colonies colonics coon coons legion legions
lesson lessons lobe lobes loner loser lover lowe lowed lowers meddle muddle real regal rena rental recital rector
rectus rights tudor tudors tutor tutors upped uppers
"""
