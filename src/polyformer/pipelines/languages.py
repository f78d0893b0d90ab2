"""Languages by name: "English", "en", "eng" and "en_XX" are one, and a model has its own word for it."""

import re
from collections.abc import Iterable

# English name, ISO 639-1 code, ISO 639-3 codes.
_TABLE = """
Afrikaans af afr; Albanian sq sqi; Amharic am amh; Arabic ar ara arb; Armenian hy hye; Assamese as asm;
Azerbaijani az aze azj; Basque eu eus; Belarusian be bel; Bengali bn ben; Bosnian bs bos; Breton br bre;
Bulgarian bg bul; Burmese my mya; Catalan ca cat; Cebuano - ceb; Chinese zh zho cmn; Corsican co cos; Croatian hr hrv;
Czech cs ces; Danish da dan; Dutch nl nld; English en eng; Esperanto eo epo; Estonian et est ekk; Faroese fo fao;
Filipino - fil; Finnish fi fin; French fr fra; Frisian fy fry; Galician gl glg; Ganda lg lug; Georgian ka kat;
German de deu; Greek el ell; Gujarati gu guj; Haitian ht hat; Hausa ha hau; Hawaiian - haw; Hebrew he heb;
Hindi hi hin; Hungarian hu hun; Icelandic is isl; Igbo ig ibo; Indonesian id ind; Irish ga gle; Italian it ita;
Japanese ja jpn; Javanese jv jav; Kannada kn kan; Kazakh kk kaz; Khmer km khm; Kinyarwanda rw kin; Kirghiz ky kir;
Korean ko kor; Kurdish ku kur kmr; Lao lo lao; Latin la lat; Latvian lv lav lvs; Lingala ln lin; Lithuanian lt lit;
Luxembourgish lb ltz; Macedonian mk mkd; Malagasy mg mlg plt; Malay ms msa zsm; Malayalam ml mal; Maltese mt mlt;
Maori mi mri; Marathi mr mar; Moldovan mo mol; Mongolian mn mon khk; Nepali ne nep npi; Norwegian no nor;
Bokmal nb nob; Nynorsk nn nno; Occitan oc oci; Oriya or ori ory; Pashto ps pus pbt; Persian fa fas pes;
Polish pl pol; Portuguese pt por; Punjabi pa pan; Quechua qu que; Romanian ro ron; Russian ru rus; Samoan sm smo;
Sanskrit sa san; Scottish gd gla; Serbian sr srp; Shona sn sna; Sindhi sd snd; Sinhala si sin; Slovak sk slk;
Slovenian sl slv; Somali so som; Sotho st sot; Spanish es spa; Sundanese su sun; Swahili sw swa swh; Swedish sv swe;
Tagalog tl tgl; Tajik tg tgk; Tamil ta tam; Tatar tt tat; Telugu te tel; Thai th tha; Tibetan bo bod; Turkish tr tur;
Turkmen tk tuk; Uighur ug uig; Ukrainian uk ukr; Urdu ur urd; Uzbek uz uzb uzn; Vietnamese vi vie; Welsh cy cym;
Wolof wo wol; Xhosa xh xho; Yiddish yi yid ydd; Yoruba yo yor; Zulu zu zul
"""
LANGUAGES = [entry.split() for entry in _TABLE.split(";")]
_BY_WORD = {word.lower(): number for number, words in enumerate(LANGUAGES) for word in words if word != "-"}


def known(language: str) -> int | None:
    """The number of a language in the table, by name or code; regions ("en_XX", "pt-br") do not count."""
    word = language.strip().lower()
    return _BY_WORD.get(word, _BY_WORD.get(re.split("[-_]", word)[0]))


def english_name(language: str) -> str:
    """What a language is called in English; as it is given where nobody knows."""
    number = known(language)
    return language if number is None else LANGUAGES[number][0]


def short_code(language: str) -> str:
    """Its code of two letters, or of three where it has none."""
    number = known(language)
    return language if number is None else next(code for code in LANGUAGES[number][1:] if code != "-")


def choose(language: str, codes: Iterable[str], what: str) -> str:
    """Which of a model's own codes is meant by a language's name or code.

    Args:
        codes: such as "en_XX", "fra", "pt_br". what: the argument's name, for messages.

    Raises:
        ValueError: none of them, or more than one.
    """
    codes = list(codes)
    exact = [code for code in codes if code.lower() == language.lower().replace("-", "_")]
    number = known(language)
    found = exact or [code for code in codes if number is not None and known(code) == number]
    if len(found) > 1:  # without a region, where there is one such
        found = [code for code in found if not re.search("[-_]", code)] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{what}={language!r} may be {' or '.join(sorted(found))} here: give one of these.")
    raise ValueError(f"{what}={language!r} is no language of this model, which has {', '.join(sorted(codes))}.")
