# Text in other languages, and what becomes of it, is what this file is about.
# ruff: noqa: RUF001

import codecs
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestor.adapters.decoding import Decoded, decode
from ingestor.core.errors import UndecodableDocument

SIMPLIFIED = """产品使用说明书
感谢您选择我们的智能温控器。请在安装之前仔细阅读本手册，并把它保存在方便的地方，以便日后查阅。
安装时请先关闭电源，确认线路没有电压后再打开外壳。如果您不熟悉电气工作，请联系专业人员。
第一次启动以后，设备会自动搜索附近的无线网络。选择网络名称，输入密码，等待指示灯变成绿色。
如果连接失败，请检查密码是否正确，或者把设备移到离路由器更近的位置，然后重新尝试。
保修期为两年，从购买之日开始计算。人为损坏、进水以及自行拆开造成的问题不在保修范围之内。
"""
TRADITIONAL = """產品使用說明書
感謝您選擇我們的智慧溫控器。請在安裝之前仔細閱讀本手冊，並把它保存在方便的地方，以便日後查閱。
安裝時請先關閉電源，確認線路沒有電壓後再打開外殼。如果您不熟悉電氣工作，請聯絡專業人員。
第一次啟動以後，設備會自動搜尋附近的無線網路。選擇網路名稱，輸入密碼，等待指示燈變成綠色。
如果連線失敗，請檢查密碼是否正確，或者把設備移到離路由器更近的位置，然後重新嘗試。
保固期為兩年，從購買之日開始計算。人為損壞、進水以及自行拆開造成的問題不在保固範圍之內。
"""
JAPANESE = """取扱説明書
このたびは本製品をお買い上げいただき、ありがとうございます。ご使用の前に、この説明書をよくお読みください。
取り付けの前に必ず電源を切り、電圧がないことを確認してからカバーを開けてください。
はじめて起動すると、近くの無線ネットワークを自動的に検索します。名前を選び、パスワードを入力してください。
接続できない場合は、パスワードが正しいかどうかを確認するか、本体をルーターの近くに移動してください。
保証期間はお買い上げの日から二年間です。お客様の不注意による故障は保証の対象になりません。
"""
KOREAN = """사용 설명서
저희 제품을 구입해 주셔서 감사합니다. 사용하기 전에 이 설명서를 잘 읽고 가까운 곳에 보관하십시오.
설치하기 전에 반드시 전원을 끄고, 전압이 없는지 확인한 다음 덮개를 여십시오.
처음 시작하면 주변의 무선 네트워크를 자동으로 검색합니다. 이름을 선택하고 비밀번호를 입력하십시오.
연결되지 않으면 비밀번호가 맞는지 확인하거나 기기를 공유기 가까이 옮긴 다음 다시 시도하십시오.
보증 기간은 구입한 날부터 이 년입니다. 사용자의 부주의로 인한 고장은 보증 대상이 아닙니다.
"""
FRENCH = """Mode d’emploi
Nous vous remercions d’avoir choisi notre thermostat. Veuillez lire cette notice très attentivement avant de
l’installer et la conserver près de l’appareil : elle vous sera utile à l’avenir. Coupez d’abord l’électricité.
Au premier démarrage, l’appareil cherche les réseaux sans fil à portée. Où que vous soyez, le cœur du système
reste réglé sur 20 °C. La garantie est de deux ans à compter de l’achat ; les dégâts dus à l’eau en sont exclus.
"""
GERMAN = """Bedienungsanleitung
Vielen Dank, dass Sie sich für unseren Thermostat entschieden haben. Bitte lesen Sie die Anleitung vor der ersten
Benutzung sorgfältig durch und bewahren Sie sie für später auf. Schalten Sie zuerst den Strom ab und prüfen Sie,
dass keine Spannung anliegt. Größere Änderungen dürfen nur Fachkräfte ausführen. „Grün“ heißt: alles in Ordnung.
Die Garantie beträgt zwei Jahre ab Kauf; Schäden durch Wasser sind ausgeschlossen. Ein Gerät kostet 89 €.
"""
SPANISH = """Manual de instrucciones
Gracias por elegir nuestro termostato. Lea con atención este manual antes de la instalación y guárdelo en un lugar
seguro. ¿No funciona la conexión? Compruebe que la contraseña es correcta o acerque el aparato al enrutador.
La garantía es de dos años desde el día de la compra; los daños causados por el agua están excluidos.
"""
PORTUGUESE = """Manual de instruções
Obrigado por escolher o nosso termóstato. Leia com atenção este manual antes da instalação e guarde-o num lugar
seguro. A ligação não funciona? Verifique se a senha está correta ou aproxime o aparelho do roteador.
A garantia é de dois anos a partir da data da compra; os danos causados pela água estão excluídos.
"""
SWEDISH = """Bruksanvisning
Tack för att du har valt vår termostat. Läs igenom anvisningen innan du börjar och spara den på en säker plats.
Stäng först av strömmen och kontrollera att det inte finns någon spänning. Garantin gäller i två år från köpet.
"""

ASIAN = [
    (SIMPLIFIED, "gb18030", "gb18030"),
    (SIMPLIFIED, "gbk", "gb18030"),
    (SIMPLIFIED, "gb2312", "gb18030"),
    (TRADITIONAL, "big5", "big5"),
    (TRADITIONAL, "gb18030", "gb18030"),
    (JAPANESE, "cp932", "shift_jis"),
    (JAPANESE, "euc_jp", "euc_jp"),
    (JAPANESE, "iso2022_jp", "iso2022_jp"),
    (KOREAN, "euc_kr", "euc_kr"),
    (KOREAN, "cp949", "euc_kr"),
]
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]
WESTERN = [
    (FRENCH, "cp1252"),
    (GERMAN, "cp1252"),
    (SPANISH, "cp1252"),
    (PORTUGUESE, "cp1252"),
    (SWEDISH, "cp1252"),
    (SPANISH, "iso8859_15"),
]
ALL_TEXTS = [SIMPLIFIED, TRADITIONAL, JAPANESE, KOREAN, FRENCH, GERMAN, SPANISH, PORTUGUESE, SWEDISH]


def fragments(text: str, size: int, count: int) -> list[str]:
    """Pieces from anywhere in a text, as short files would be; always the same ones."""
    chosen = random.Random(size)
    starts = [chosen.randrange(len(text) - size) for _ in range(count)]
    return [text[start : start + size].strip() for start in starts]


def outcome(raw: bytes) -> Decoded | None:
    """None: refused."""
    try:
        return decode(raw)
    except UndecodableDocument:
        return None


def outcomes(pieces: list[str], encoding: str) -> tuple[int, int]:
    """How many pieces were decoded to something else than they are, and how many were refused."""
    decoded = [(piece, outcome(piece.encode(encoding))) for piece in pieces]
    wrong = sum(1 for piece, read in decoded if read is not None and read.text != piece)
    return wrong, sum(1 for _, read in decoded if read is None)


@pytest.mark.parametrize(("text", "encoding", "name"), ASIAN)
def test_a_text_of_east_asia_is_told_from_its_bytes(text: str, encoding: str, name: str) -> None:
    assert decode(text.encode(encoding)) == Decoded(text, name)


@pytest.mark.parametrize(("text", "encoding", "name"), ASIAN)
def test_twenty_characters_are_enough_nearly_always(text: str, encoding: str, name: str) -> None:
    del name
    wrong, refused = outcomes(fragments(text, 20, 50), encoding)
    assert wrong == 0
    assert refused <= 5


@pytest.mark.parametrize("text", ALL_TEXTS)
@pytest.mark.parametrize("encoding", UNICODE)
def test_unicode_is_told_with_and_without_a_byte_order_mark(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text
    wrong, refused = outcomes(fragments(text, 20, 20), encoding)
    assert (wrong, refused) == (0, 0)


@pytest.mark.parametrize(("text", "encoding"), WESTERN)
def test_a_text_of_western_europe_is_told_from_its_bytes(text: str, encoding: str) -> None:
    raw = text.encode(encoding)
    assert decode(raw).text == text


@pytest.mark.parametrize(("text", "encoding"), WESTERN)
def test_short_texts_of_western_europe_are_right_or_refused(text: str, encoding: str) -> None:
    for size, most_refused in ((20, 25), (60, 20), (120, 10)):
        wrong, refused = outcomes(fragments(text, size, 50), encoding)
        assert wrong == 0
        assert refused <= most_refused


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Это обычный русский текст, записанный в старой кодировке, и его нельзя прочитать как западный.", "cp1251"),
        ("Это обычный русский текст, записанный в старой кодировке, и его нельзя прочитать как западный.", "koi8_r"),
        ("Dziękujemy za wybór naszego urządzenia. Proszę przeczytać instrukcję przed użyciem.", "cp1250"),
        ("Dziękujemy za wybór naszego urządzenia. Proszę przeczytać instrukcję przed użyciem.", "iso8859_2"),
        ("Děkujeme, že jste si vybrali náš přístroj. Před použitím si přečtěte tento návod.", "cp1250"),
        ("Köszönjük, hogy a mi készülékünket választotta. Kérjük, olvassa el az útmutatót, mielőtt fűtene.", "cp1250"),
        ("Vă mulțumim că ați ales aparatul nostru. Citiți instrucțiunile înainte de utilizare.", "iso8859_16"),
        ("Cihazımızı seçtiğiniz için teşekkür ederiz. Kullanmadan önce kılavuzu okuyunuz.", "cp1254"),
        ("Ευχαριστούμε που επιλέξατε τη συσκευή μας. Διαβάστε τις οδηγίες πριν από τη χρήση.", "cp1253"),
        ("ขอบคุณที่เลือกใช้ผลิตภัณฑ์ของเรา โปรดอ่านคู่มือก่อนใช้งาน", "cp874"),
        ("تشكرات لاختيار منتجنا. يرجى قراءة الدليل قبل الاستعمال", "cp1256"),
        (FRENCH.replace("’", "'").replace("œ", "oe"), "cp850"),
        (FRENCH, "mac_roman"),
        (GERMAN.replace("„", '"').replace("“", '"').replace("€", "EUR"), "cp850"),
        (SPANISH, "mac_roman"),
    ],
)
def test_what_is_not_known_is_refused_and_not_guessed(text: str, encoding: str) -> None:
    with pytest.raises(UndecodableDocument) as caught:
        decode(text.encode(encoding))
    assert "UTF-8" in caught.value.remedy


@pytest.mark.parametrize(("text", "encoding"), [(text, name) for text, name, _ in ASIAN] + [(KOREAN, "utf-8")])
def test_a_file_cut_short_is_never_read_as_something_else(text: str, encoding: str) -> None:
    raw = text.encode(encoding)
    for end in range(len(raw) - 12, len(raw)):
        read = outcome(raw[:end])
        assert read is None or text.startswith(read.text)


@pytest.mark.parametrize(("text", "encoding", "name"), [case for case in ASIAN if case[2] != "iso2022_jp"])
def test_half_a_character_at_the_end_is_told(text: str, encoding: str, name: str) -> None:
    raw = text.rstrip().rstrip("。.").encode(encoding)
    with pytest.raises(UndecodableDocument, match=f"{name}, but not from line 6 "):
        decode(raw[:-1])


def test_utf8_cut_short_or_damaged_is_told_with_its_line() -> None:
    raw = SIMPLIFIED.strip().encode()
    with pytest.raises(UndecodableDocument, match=r"breaks off in the middle of its last character \(line 6\)"):
        decode(raw[:-1])
    position = SIMPLIFIED.index("安装时")
    damaged = SIMPLIFIED[:position].encode() + b"\xe5" + SIMPLIFIED[position:].encode()
    with pytest.raises(UndecodableDocument, match="damaged at line 3"):
        decode(damaged)


def test_two_encodings_in_one_file_are_not_read_as_one() -> None:
    with pytest.raises(UndecodableDocument):
        decode((SIMPLIFIED * 20).encode("gb18030") + (KOREAN * 20).encode("euc_kr"))
    with pytest.raises(UndecodableDocument):
        decode((SIMPLIFIED * 20).encode("gb18030") + (SIMPLIFIED * 20).encode())


def test_a_long_file_is_judged_by_all_of_it() -> None:
    raw = (SIMPLIFIED * 300).encode("gb18030") + "你好".encode("gb18030")[:3]
    with pytest.raises(UndecodableDocument, match="but not from line 1,801 "):
        decode(raw)
    assert decode(raw[:-3]).encoding == "gb18030"


def test_a_few_characters_in_a_lot_of_ascii_are_found() -> None:
    code = "def area(width: float, height: float) -> float:\n    return width * height\n" * 500
    text = code + "# 计算面积：宽度和高度的单位是米，结果是平方米\n"
    assert decode(text.encode("gbk")) == Decoded(text, "gb18030")


@pytest.mark.parametrize("word", ["支援", "模式", "删", "为"])
def test_chinese_that_happens_to_be_valid_utf8_is_not_taken_for_it(word: str) -> None:
    raw = f"option: {word}\n".encode("gbk")
    raw.decode("utf-8")
    with pytest.raises(UndecodableDocument):
        decode(raw)


@pytest.mark.parametrize(
    "text", ["sûr", "λ", "Ω", "/ə/", "да", "café ☕", "±5 °C", "naïve", "שלום", "ģimene", "你", "好的"]
)
def test_short_utf8_is_utf8(text: str) -> None:
    assert decode(text.encode()) == Decoded(text, "utf-8")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"%PDF-1.7\nplain", "PDF"),
        (b"PK\x03\x04\x14\x00\x06\x00", "Office document"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"\x7fELF\x02\x01\x01\x00", "ELF"),
        (b"\x1f\x8b\x08\x00\xff", "gzip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "old Office document"),
        (b"SQLite format 3\x00\x10", "SQLite"),
        (b"one\x00two", "binary"),
        (b"text that ends after a crash\n" + bytes(64), "binary"),
        (bytes(range(1, 32)), "binary"),
        (random.Random(1).randbytes(4096), "binary"),
        (random.Random(1).randbytes(4096).replace(b"\x00", b"\x01"), "binary"),
    ],
)
def test_binary_files_are_refused_by_name(raw: bytes, name: str) -> None:
    with pytest.raises(UndecodableDocument, match=name) as caught:
        decode(raw)
    assert "watch.exclude" in caught.value.remedy


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_byte_order_mark_before_something_else_is_refused(mark: bytes) -> None:
    with pytest.raises(UndecodableDocument, match="byte order mark of utf-16"):
        decode(mark + "half a character".encode("utf-16-le")[:-1])


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_line_ends_become_one_character(end: str, encoding: str) -> None:
    raw = SIMPLIFIED.replace("\n", end).encode(encoding)
    assert decode(raw).text == SIMPLIFIED


@pytest.mark.parametrize("raw", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE])
def test_nothing_is_an_empty_text(raw: bytes) -> None:
    assert decode(raw).text == ""


def test_an_empty_file_is_utf8() -> None:
    assert decode(b"") == Decoded("", "utf-8")


def test_colours_of_a_terminal_are_text() -> None:
    assert decode(b"\x1b[31merror\x1b[0m: no such file\n").encoding == "utf-8"


@given(st.binary(max_size=300) | st.text(max_size=80).map(str.encode))
@example(b"\x83\x36\xc7\x39")
@example(b"\xed\xa0\x80")
@example("中文".encode("utf-16-le") * 20 + b"\x00\xd8")
def test_any_bytes_become_a_clean_text_or_are_refused(raw: bytes) -> None:
    decoded = outcome(raw)
    if decoded is not None:
        assert "\r" not in decoded.text
        assert "\x00" not in decoded.text
        decoded.text.encode("utf-8")
