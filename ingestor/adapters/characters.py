"""Which characters are common in which language: what tells a right decoding from a wrong one.

Invariant: only evidence, no verdict. Bytes of Chinese, Japanese or Korean text read in the wrong encoding are often
valid, but turn into characters that nobody uses; so a score per character tells them apart.
"""

# Fullwidth punctuation is what this file is about.
# ruff: noqa: RUF001

import string
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Final

_CHINESE: Final = """
的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多
经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性
知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次
度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建
务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路
记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔集收林联步轻言品写早较义九六七八百千
单离爱流式快连片算字满每花请功希房半界近准导始米深支往周般土城红引钱图失复整息愿续存错落亲留组照例根越布技查份参精随称专
备跟显细击试包终首装标响台验值历维护否亮持错须优质项议型足费低属编输码键网页版链默认启配置示络程序户选择段行列读写文件夹
"""
_TRADITIONAL: Final = """
這個們來為國說時會對於過發後裡經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問並應戰頭體見產話內給門兒東聲員論處義幾認條
係氣題爾別變總電數報結務場計資許統區隊決馬書則聽卻達強難權設記類據邊張該規萬覺術領確傳師觀讓識帶導爭運筆聯輕寫較單離愛連
滿請準圖復續錯親組專備顯細擊試終標響檯台驗歷護須優質項議費屬編輸碼鍵網頁鏈啟絡選擇讀檔夾訊號線邏輯庫歡迎謝買賣車飛魚鳥龍
麵臺灣縣市鄉鎮華語漢歲參與雖雙擁獨盡廳藝獲勝劃製幣幫談誰調證評詞診贏顧願預險隨靜館養飯飲約紅級純紙絕統絲綠緊緣縮績織繼續
"""
_KANJI: Final = """
日一国会人年大十二本中長出三同時政事自行社見月分議後前民生連五発間対上部東者党地合市業内相方四定今回新場金員九入選立開手米力
学問高代明実円関決子動京全目表戦経通外最言氏現理調体化田当八六約主題下首意法不来作性的要用制治度務強気小七成期公野協取都和統
以機平総加山思家話世受区領多県続進正安設保改数記院女初北午指権心界支第産結百派点教報済書府活原先共得解名交資予川向際査勝面委
告軍文反元重近千考判認画海参売利組知案道信策集在件団別物側任引使求所次水半品昨論計死官増係感特情投示変打男基私各始島直両朝革
価式確村提運終挙果西勢減台広容必応演電歳住争談能無再位置企真流格有疑口過局少放税検藤町常校料沢裁状工建語球営空職証土与急止送
援供可役構木割聞身費付施切由説転食比難防補車優夫研収断井何南石足違消境神番規術護展態導鮮備宅害配副算視条幹独警宮究育席輸訪楽
起万着乗店述残想線率病農州武声質念待試族象銀域助労例衛然早張映限親額監環験追審商葉義伝働形景落欧担好退準賞訴辺造英被株頭技低
毎医復仕去姿味負閣韓渡失移差衆個門写評課末守若脳極種美岡影命含福蔵量望松非撃佐核観察整段横融型白深字答夜製票況音申様財港識注
関数値文字列型変更設定保存削除実行開始終了入力出力画面表示選択項目追加確認使用方法場合以下時間情報処理機能管理利用作成
"""
_HANGUL: Final = """
이다는을의에가고하은지로어기사리도한자를대서인시나라아들그니해정수전일으부있보제는과면것장상안여게했주원성구만비조오적동
거공스유모데요마내선치세경국우소방용관무발진위미신분드연화분입당되양생개습할저점없물실트된던중력때운문산계강간
음산체식업민영레워출바반본현속터재결학문터크행심건말표후차노러려두명외월같르각더및와합니까래포예남심였받려네또글회
단임질규록태달번등직불감통금복배호망목표않못많올작품살알잘길날갈함람름임님된든런론련령료류률립막매맞먼멀몇몰므믿밀
버벌변별병복본북빛빠빨뿐삶새색석설섭셨손술슬습승씨았않앞약얼업에엔역열영예온왔왜욕움웃육율음응의인임있잠잡
절젊접졌졸좋죄죽줄줘즐지직짐집짝째쪽찬찾채책처천철첫청초총최추축춤충취측층친카커코큰타택토투특틀파판패편평폭
품풍프피필하학항해험형혼홍확환활황효훈휴흐희힘텍환험값변경파일설치옵션함록블실행오류명령패키지
"""
_PUNCTUATION: Final = "，。、；：？！“”‘’（）《》「」『』【】—…·・　～ー々〇"
_KANA: Final = "".join(map(chr, (*range(0x3041, 0x3094), *range(0x30A1, 0x30F7))))

COMMON_POINTS: Final = 2.0
USUAL_POINTS: Final = -0.5
RARE_POINTS: Final = -4.0
NO_CHARACTER_POINTS: Final = -10.0
"""Rounded logarithms: how much likelier a character is in a text of the language than in a wrong decoding."""


@dataclass(frozen=True, slots=True)
class Language:
    """Characters by how often a language uses them: `common` make up about 80 % of a text, with `usual` 99 %."""

    name: str
    common: frozenset[str]
    usual: frozenset[str]

    def points(self, character: str) -> float:
        """What one character says for the language (positive) or against it; 0 for a sign that any language may use."""
        if character in self.common:
            return COMMON_POINTS
        if character in self.usual:
            return USUAL_POINTS
        category = unicodedata.category(character)
        if category in {"Cn", "Co", "Cc"}:
            return NO_CHARACTER_POINTS
        return RARE_POINTS if category.startswith(("L", "M")) else 0.0

    def score(self, text: str) -> "Score":
        """The points of all characters that are not ASCII and say anything for or against."""
        counts = {each: count for each, count in Counter(text).items() if not each.isascii()}
        points = {each: points for each in counts if (points := self.points(each))}
        return Score(
            sum(points[each] * counts[each] for each in points), sum(counts[each] for each in points), len(points)
        )


@dataclass(frozen=True, slots=True)
class Score:
    """Points for a language, and how many characters, and different ones, they come from."""

    points: float
    characters: int
    distinct_characters: int

    @property
    def mean(self) -> float:
        """Points a character: 1.3 for a right decoding, below 0 for a wrong one."""
        return self.points / max(self.characters, 1)


def _decoded(encoding: str, leads: range, trails: range) -> frozenset[str]:
    """Every character of a part of a two-byte code."""
    pairs = (bytes((lead, trail)).decode(encoding, "ignore") for lead in leads for trail in trails)
    return frozenset(pair for pair in pairs if pair)


@cache
def simplified_chinese() -> Language:
    """Usual: the first level of GB 2312."""
    return Language("Chinese", _set(_CHINESE, _PUNCTUATION), _decoded("gb2312", range(0xB0, 0xD8), range(0xA1, 0xFF)))


@cache
def traditional_chinese() -> Language:
    """Usual: the first level of Big5."""
    return Language(
        "traditional Chinese",
        _set(_CHINESE, _TRADITIONAL, _PUNCTUATION),
        _decoded("big5", range(0xA4, 0xC7), range(0x40, 0xFF)),
    )


@cache
def japanese() -> Language:
    """Usual: the first level of JIS X 0208."""
    return Language(
        "Japanese", _set(_KANJI, _KANA, _PUNCTUATION), _decoded("euc_jp", range(0xB0, 0xD0), range(0xA1, 0xFF))
    )


@cache
def korean() -> Language:
    """Usual: the syllables of KS X 1001."""
    return Language("Korean", _set(_HANGUL, _PUNCTUATION), _decoded("euc_kr", range(0xB0, 0xC9), range(0xA1, 0xFF)))


def _set(*texts: str) -> frozenset[str]:
    return frozenset("".join(texts)) - frozenset(string.whitespace)
