"""Translators as a person trains and uses them, and as a person gets them wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from command_line import runner_in_this_process
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.finished import FinishedRun
from golu_lm.cli import COMMAND_LINE as GOLU_LM
from golu_translate.cli import COMMAND_LINE
from golu_translate.config import TranslationConfig
from golu_translate.evaluate import SourceGroups, run_codec
from golu_translate.model import Translator
from golu_translate.scores import scores, split_compounds
from golu_translate.search import beam_search
from golu_translate.translate import arriving_blocks, blocks_of, shown, translations
from lm_program import LM
from lm_program import TINY as TINY_LM
from translation_program import FOLDER, TINY, TRANSLATE, pairs, prepared

METRICS = {"loss", "perplexity", "token_accuracy", "bleu", "bleu_tokenized", "bleu_compound", "chrf"}


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    prepared(cwd / "data")
    done = TRANSLATE.run("train", "transformer-numbers", *TINY, "--optim.lr", "0.01", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("language-model")
    done = LM.run("train", "babygpt-pydocs", *TINY_LM, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs/lm/babygpt-pydocs/golu/seed0"


def test_a_finished_run_has_all_its_files(finished):
    result = json.loads((finished / FOLDER / "result.json").read_text())
    assert result["primary_metric"]["name"] == "bleu" and result["primary_metric"]["higher_is_better"]
    assert set(result["metrics"]) == METRICS | {f"valid_{name}" for name in METRICS}
    assert result["activations"] == {"swapped": 2, "left": []}
    assert result["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert result["throughput"]["unit"] == "tokens/s" and result["data"]["test"]["pairs"] == 24
    for name in ("model.safetensors", "model_ema.safetensors", "subwords.json", "curves.png"):
        assert (finished / FOLDER / name).stat().st_size > 100
    shown_pairs = (finished / FOLDER / "samples" / "translations.txt").read_text().split("\n\n")
    assert len(shown_pairs) == 24
    for text, (source, reference) in zip(shown_pairs, pairs()["test"], strict=True):
        assert text.splitlines()[:2] == [f"source     {source}", f"reference  {reference}"]
    lines = [json.loads(line) for line in (finished / FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "test"] == [4, 8, 12]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert len(losses) == 12 and losses[-1] < losses[0]


def test_evaluate_prints_the_metrics_of_the_result(finished, run_here):
    result = json.loads((finished / FOLDER / "result.json").read_text())
    done = run_here("evaluate", str(FOLDER), cwd=finished)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines() if "signature" not in line)
    assert set(printed) == METRICS
    for name, value in printed.items():
        assert float(value) == pytest.approx(result["metrics"][name], rel=1e-5)
    assert result["signatures"]["bleu"] in done.stdout and result["signatures"]["chrf"] in done.stdout


def own_files(folder: Path) -> tuple[Path, Path]:
    source, reference = folder / "mine.en", folder / "mine.de"
    for path, column in ((source, 0), (reference, 1)):
        path.write_text("".join(f"{pair[column]}\n" for pair in pairs()["test"]))
    return source, reference


def test_own_files_are_scored_like_the_test_split(finished, run_here, tmp_path):
    source, reference = own_files(tmp_path)
    result = json.loads((finished / FOLDER / "result.json").read_text())
    own = ("--source", str(source), "--reference", str(reference), "--data-dir", "nowhere")  # the run is enough
    done = run_here("evaluate", str(FOLDER), *own, cwd=finished)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines() if "signature" not in line)
    assert set(printed) == {"bleu", "bleu_tokenized", "bleu_compound", "chrf"}
    for name, value in printed.items():
        assert float(value) == pytest.approx(result["metrics"][name], rel=1e-5)


def test_translations_of_a_file_are_those_of_the_run(finished, run_here, tmp_path):
    """In the file's order, empty lines where they were, whatever stands beside a line."""
    source, _ = own_files(tmp_path)
    lines = source.read_text().splitlines()
    texts = (finished / FOLDER / "samples" / "translations.txt").read_text()
    ours = [line[11:] for line in texts.splitlines() if line.startswith("ours")]
    mixed = [*lines[:3], "", *lines[3:], "   ", lines[0], ""]
    source.write_text("\n".join(mixed) + "\n")
    done = run_here("translate", str(FOLDER), str(source), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [*ours[:3], "", *ours[3:], "", ours[0], ""]


def test_n_best_and_standard_input(finished, run_here, tmp_path, monkeypatch):
    source, _ = own_files(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    done = run_here("translate", str(FOLDER), "--n-best", "3", "--beam", "5", cwd=finished)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * 24
    for start in range(0, len(lines), 3):
        assert {line.split("\t")[0] for line in lines[start : start + 3]} == {str(start // 3 + 1)}
        found = [float(line.split("\t")[1]) for line in lines[start : start + 3]]
        assert found == sorted(found, reverse=True)
        assert len({line.split("\t")[2] for line in lines[start : start + 3]}) == 3
    one = run_here("translate", str(FOLDER), str(source), "--beam", "5", cwd=finished)
    assert one.stdout.splitlines() == [lines[n].split("\t")[2] for n in range(0, len(lines), 3)]


def test_blocks_of_lines_change_nothing(finished, monkeypatch):
    run = FinishedRun.at(finished / FOLDER, TranslationConfig)
    codec = run_codec(run)
    model = Translator(run.config.model, "golu").eval()
    run.load_evaluated_weights(model, run.config.average)
    lines = [pair[0] for pair in pairs()["test"]]

    def texts(blocks):
        found = translations(model, codec, blocks, run.config.search, [])
        return [[line.split("\t")[2] for line in shown(one, codec, 2, 1)] for one in found]

    whole = texts(blocks_of(iter(lines)))
    assert texts(arriving_blocks(iter(lines))) == whole
    monkeypatch.setattr("golu_translate.translate._LINES_AT_ONCE", 5)
    assert texts(blocks_of(iter(lines))) == texts(arriving_blocks(iter(lines))) == whole


def test_a_pipe_gets_each_translation_before_the_next_line_is_written(finished):
    command = TRANSLATE.command("translate", str(FOLDER))
    with subprocess.Popen(command, cwd=finished, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        answers = []
        for line in ("two euros", "three euros"):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answers.append(process.stdout.readline())  # would wait forever for a block to be full
        process.stdin.close()
        assert process.wait(60) == 0 and all(answer.strip() for answer in answers)


def test_a_line_that_is_too_long_costs_no_other(finished, run_here, tmp_path):
    path = tmp_path / "mine.en"
    path.write_text("two euros\n" + "hundred " * 200 + "\nthree euros\n")
    done = run_here("translate", str(FOLDER), str(path), cwd=finished)
    first, empty, last = done.stdout.split("\n")[:-1]
    assert first and last and empty == ""
    assert done.returncode == 1 and "1 line has more subwords than the 128" in done.stderr and "(line 2)" in done.stderr
    best = run_here("translate", str(FOLDER), str(path), "--n-best", "1", cwd=finished).stdout.splitlines()
    assert [line.split("\t")[0] for line in best] == ["1", "3"]


def test_the_metrics_are_of_the_average(finished):
    """The mean of the last five weights at distances of two steps, and not the last weights."""
    run = FinishedRun.at(finished / FOLDER, TranslationConfig)
    models = [Translator(run.config.model, "golu").eval() for _ in range(2)]
    run.load_weights(models[0])
    run.load_evaluated_weights(models[1], run.config.average)
    assert not torch.equal(models[0].embedding.weight, models[1].embedding.weight)
    codec = run_codec(run)
    texts = (finished / FOLDER / "samples" / "translations.txt").read_text()
    ours = [line[11:] for line in texts.splitlines() if line.startswith("ours")]
    lines = [pair[0] for pair in pairs()["test"]]
    found = translations(models[1], codec, iter([lines]), run.config.search, [])
    again = [shown(one, codec, None, 1) for one in found]
    assert [line for (line,) in again] == ours


def test_without_an_average_the_metrics_are_of_the_last_weights(tmp_path, run_here):
    prepared(tmp_path / "data")
    flags = [*TINY[: TINY.index("--average.every")], "--average", "none", "--log-every", "1"]
    done = run_here("train", "transformer-numbers", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / FOLDER / "model_ema.safetensors").exists()
    done = run_here("evaluate", str(FOLDER), cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.strip().splitlines()[-1].startswith("the same as in result.json")


WRONG = {
    "more translations than beams": (("--n-best", "9"), "a", "--n-best 9 needs as many beams: pass --beam 9"),
    "no beams": (("--beam", "0"), "a", "--beam must be at least 1"),
    "not utf-8": ((), b"\xff\xfe", "line 2, is not UTF-8"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_translations_are_one_message(kind, finished, run_here, tmp_path):
    flags, text, message = WRONG[kind]
    path = tmp_path / "mine.en"
    path.write_bytes(b"two euros\n" + (text.encode() if isinstance(text, str) else text) + b"\n")
    done = run_here("translate", str(FOLDER), str(path), *flags, cwd=finished)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_runs_of_another_task_are_refused_by_one_message(finished, language_model, run_here, monkeypatch, capfd):
    run_golu_lm = runner_in_this_process(GOLU_LM, monkeypatch, capfd)
    for command, said in (("generate", "has no generate"), ("evaluate", f"use golu-translate evaluate {FOLDER}")):
        done = run_golu_lm(command, str(FOLDER), cwd=finished)
        assert done.returncode == 2
        assert done.stderr.startswith(f"golu-lm: {FOLDER} is a run of golu-translate: ") and said in done.stderr
    for command, said in (("translate", "has no translate"), ("evaluate", "use golu-lm evaluate")):
        done = run_here(command, str(language_model), cwd=finished)
        assert done.returncode == 2 and f"{language_model} is a run of golu-lm: " in done.stderr and said in done.stderr


MOVED = [
    (["train", "transformer-wmt14", "--seed", "1"], "use golu-translate train transformer-wmt14"),
    (["translate", "a run", "-"], "golu-translate translate 'a run' -"),
    (["prepare", "wmt14"], "golu-translate prepare wmt14"),
    (["prepare", "pairs", "--pair=en-de"], "golu-translate prepare pairs --pair=en-de"),
    (["prepare-pairs", "wmt14"], "golu-translate prepare wmt14"),
]


@pytest.mark.parametrize(("words", "command"), MOVED, ids=lambda value: " ".join(value) if value == list(value) else "")
def test_golu_lm_names_the_new_command(words, command, tmp_path, monkeypatch, capfd):
    done = runner_in_this_process(GOLU_LM, monkeypatch, capfd)(*words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.rstrip().endswith(command) and done.stderr.count("\n") == 1


def test_a_missing_file_of_the_run_is_named(finished, run_here, tmp_path):
    shutil.copytree(finished / FOLDER, tmp_path / "run")
    (tmp_path / "run" / "subwords.json").unlink()
    done = run_here("translate", "run", "-", cwd=tmp_path)
    assert done.returncode == 2 and "subwords.json is missing" in done.stderr


UNFIT = {
    "no data": (("--data-dir", "nowhere", "--data.name", "wmt14-en-de"), "run golu-translate prepare wmt14"),
    "a small vocabulary": (("--model.vocabulary", "64"), "pass --model.vocabulary 128"),
    "a short model": (("--model.longest", "5"), "the model accepts 5: pass --model.longest"),
    "small bundles": (("--data.bundle-tokens", "4"), "set --data.bundle-tokens"),
    "a large batch": (("--batch-size", "4000"), "larger than the training set"),
    "heads that do not fit": (("--model.heads", "3"), "is not a multiple of --model.heads"),
    "a schedule of epochs": (("--schedule", "cosine"), "--schedule.per must be step"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_does_not_fit_is_refused_before_anything_is_written(kind, finished, run_here):
    flags, message = UNFIT[kind]
    done = run_here("train", "transformer-numbers", *TINY, "--output-dir", "other", *flags, cwd=finished)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (finished / "other").exists() and "Traceback" not in done.stderr


DAMAGE = {
    "a vocabulary that is gone": ("subwords.json", None),
    "a torn vocabulary": ("subwords.json", lambda data: data[:-20]),
    "numbers that are gone": ("train.en.bin", None),
    "half a number": ("train.en.bin", lambda data: data[:-1]),
    "a sentence less": ("valid.de.bin", lambda data: data[: data.rindex(b"\x02\x00", 0, -2) + 2]),
    "a reference less": ("test.de", lambda data: data[: data[:-1].rindex(b"\n") + 1]),
    "other text": ("meta.json", lambda data: b"{}"),
    "no description": ("meta.json", None),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_pairs_are_named(kind, tmp_path, run_here):
    name, change = DAMAGE[kind]
    path = prepared(tmp_path / "data") / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    done = run_here("train", "transformer-numbers", *TINY, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "prepare the data again" in done.stderr and path.name in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


def test_check_data_finds_a_changed_number(tmp_path, run_here):
    path = prepared(tmp_path / "data") / "train.de.bin"
    data = bytearray(path.read_bytes())
    place = next(n for n in range(0, len(data), 2) if data[n] not in (2, 3, 9))
    data[place] ^= 1
    path.write_bytes(data)
    flags = ("--check-data", "--dry-run")
    done = run_here("train", "transformer-numbers", *TINY, *flags, cwd=tmp_path)
    assert done.returncode == 2 and "does not have the checksum" in done.stderr


def followed(advice: str) -> list[str]:
    """The flags that a message names, with the values that it gives."""
    return [word for flag in re.findall(r"(--[a-z.-]+ [^\s,]+)", advice) for word in flag.split()]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_model_that_is_too_short_is_made_longer_as_the_message_says(split, tmp_path, monkeypatch, capsys):
    """Whatever `prepare` accepts, a model can be made for, in one step."""
    monkeypatch.chdir(tmp_path)
    texts = dict(pairs())
    texts[split] = [*texts[split], ("one two three " * 40, "eins zwei " * 50)]
    text = tmp_path / "text"
    text.mkdir()
    for name, lines in texts.items():
        (text / f"{name}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in lines))
    prepare = ["prepare", "text", "--name", "own", "--vocabulary", "160", "--num-workers", "1"]
    assert COMMAND_LINE.main(prepare) == 0
    train = ["train", "transformer-numbers", *TINY, "--data.name", "own", "--max-steps", "1"]
    short = ["--model.longest", "40"]
    assert COMMAND_LINE.main([*train, *short]) == 2
    message = capsys.readouterr().err
    longer, _, again = message.partition("or prepare")
    assert COMMAND_LINE.main([*train, *followed(longer)]) == 0
    assert ("--max-subwords" in again) == (split == "train")
    if again:
        assert COMMAND_LINE.main([*prepare, *followed(again.replace("--overwrite", "")), "--overwrite"]) == 0
        assert COMMAND_LINE.main([*train, *short, "--output-dir", "again"]) == 0


def test_pairs_that_are_not_there_are_prepared_as_the_message_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["train", "transformer-numbers", *TINY, "--data.name", "my own", "--data-dir", "here", "--max-steps", "1"]
    assert COMMAND_LINE.main(train) == 2
    advice = re.search(r"with (--name .*)", capsys.readouterr().err)
    assert advice is not None
    for split, lines in pairs().items():
        (tmp_path / f"{split}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in lines))
    assert COMMAND_LINE.main(["prepare", str(tmp_path), *shlex.split(advice[1]), "--num-workers", "1"]) == 0
    assert COMMAND_LINE.main(train) == 0


# ------------------------------------------------------------------------------------------------------------- scores

HYPOTHESES = ["Die Katze sitzt auf der Matte.", "Ein gut-bekannter Mann-Hund „rannte“ 3.5 km.", "Nichts davon stimmt!"]
REFERENCES = [
    "Die Katze saß auf der Matte.",
    "Ein wohl-bekannter Mann-Hund „rannte“ 3,5 km.",
    "Alles davon stimmt.",
]


def test_scores_are_those_of_sacrebleus_command(tmp_path):
    for name, lines in (("hyp", HYPOTHESES), ("ref", REFERENCES)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        str(tmp_path / "ref"),
        "-i",
        str(tmp_path / "hyp"),
        "-m",
        "bleu",
        "chrf",
    ]
    printed = json.loads(subprocess.run([*command, "-w", "6"], capture_output=True, text=True, check=True).stdout)
    found = scores(HYPOTHESES, REFERENCES, HYPOTHESES, REFERENCES, "de")
    assert found.values["bleu"] == pytest.approx(printed[0]["score"], abs=1e-5)
    assert found.values["chrf"] == pytest.approx(printed[1]["score"], abs=1e-5)
    ours = dict(part.split(":") for part in found.signatures["bleu"].split("|"))
    assert (
        re.fullmatch(r"[\d.]+", ours["version"])
        and ours["tok"] == printed[0]["signature"].split("tok:")[1].split("|")[0]
    )


def bleu_by_hand(hypotheses: list[str], references: list[str]) -> float:
    """Papineni et al. (ACL 2002), over a corpus, without smoothing, as multi-bleu.perl computes it."""
    import math
    from collections import Counter

    matched, total, ours, theirs = [0] * 4, [0] * 4, 0, 0
    for hypothesis, reference in zip((h.split() for h in hypotheses), (r.split() for r in references), strict=True):
        ours, theirs = ours + len(hypothesis), theirs + len(reference)
        for n in range(4):
            grams = [
                Counter(tuple(words[k : k + n + 1]) for k in range(len(words) - n)) for words in (hypothesis, reference)
            ]
            matched[n] += sum((grams[0] & grams[1]).values())
            total[n] += sum(grams[0].values())
    if 0 in matched:
        return 0.0
    mean = sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / 4
    return 100 * math.exp(mean) * min(1.0, math.exp(1 - theirs / ours))


def test_bleu_of_words_is_papinenis():
    words = ["ein gut @-@ bekannter mann geht nach hause .", "der Hund-Mann rannte schnell nach hause zurück ."]
    references = ["ein gut @-@ bekannter herr geht nach hause .", "der Hund-Mann rannte schnell nach hause ."]
    found = scores(words, references, words, references, "de").values
    assert found["bleu_tokenized"] == pytest.approx(bleu_by_hand(words, references), abs=1e-9)
    assert 0 < found["bleu_tokenized"] < 100


def test_compounds_are_split_by_fairseqs_expression():
    """`compound_split_bleu.sh` has it in Perl; of two hyphens around one letter the second stays."""
    perl = shutil.which("perl")
    if perl is None:
        pytest.skip("needs Perl")
    lines = ["der Hund-Mann rannte", "a-b-c x-y", "ab-cd-ef - a", "gut @-@ bekannt", "-a b-", "grün-weiß-rote"]
    expression = r"s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g"
    text = "\n".join(lines) + "\n"
    done = subprocess.run([perl, "-CSD", "-ple", expression], input=text, capture_output=True, text=True, check=True)
    assert [split_compounds(line) for line in lines] == done.stdout.splitlines()
    words = ["der Hund-Mann rannte schnell nach hause zurück ."], ["der Hund-Mann rannte schnell nach hause ."]
    parts = [[split_compounds(line) for line in side] for side in words]
    assert scores(*words, *words, "de").values["bleu_compound"] == pytest.approx(bleu_by_hand(*parts), abs=1e-9)


def test_a_perfect_translation_has_100():
    found = scores(REFERENCES, REFERENCES, REFERENCES, REFERENCES, "de").values
    assert all(value == pytest.approx(100.0) for value in found.values())


SENTENCES = {
    "zh": ("欧洲议会批准了这项新的法律。", "zh"),
    "cmn": ("欧洲议会批准了这项新的法律。", "zh"),
    "ja": ("欧州議会は新しい法律を承認した。", "ja-mecab"),
    "jpn": ("欧州議会は新しい法律を承認した。", "ja-mecab"),
    "ko": ("유럽 의회는 새로운 법을 승인했다.", "ko-mecab"),
    "th": ("รัฐสภายุโรปอนุมัติกฎหมายใหม่แล้ว", "char"),
    "khm": ("សភាអឺរ៉ុបបានអនុម័តច្បាប់ថ្មី", "char"),
    "my": ("ဥရောပပါလီမန်က ဥပဒေသစ်ကို အတည်ပြုခဲ့သည်", "char"),
    "de": ("Die Regierung hat das neue Gesetz heute gebilligt.", "13a"),
    "ru": ("Европейский парламент одобрил новый закон.", "13a"),
    "hi": ("यूरोपीय संसद ने नए कानून को मंजूरी दी।", "13a"),
    "ar": ("وافق البرلمان الأوروبي على القانون الجديد اليوم.", "13a"),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_bleu_of_an_exact_match_is_100_in_every_script(language):
    """Or it is refused, where sacreBLEU needs a package to cut the language into words."""
    text, tokenizer = SENTENCES[language]
    package = {"ja-mecab": "MeCab", "ko-mecab": "mecab_ko"}.get(tokenizer)
    if package is not None and importlib.util.find_spec(package) is None:
        with pytest.raises(RequestError, match=re.escape(f"pip install 'sacrebleu[{tokenizer[:2]}]'")):
            scores([text], [text], [text], [text], language)
        return
    found = scores([text], [text], [text], [text], language)
    assert found.values["bleu"] == pytest.approx(100.0)
    assert f"|tok:{tokenizer}" in found.signatures["bleu"]


def test_chinese_scores_are_those_of_sacrebleus_command(tmp_path):
    lines = {
        "hyp": ["欧洲议会批准了这项新的法律。", "今天天气很好。"],
        "ref": ["欧洲议会通过了这项新法律。", "今天天气真好。"],
    }
    for name, texts in lines.items():
        (tmp_path / name).write_text("\n".join(texts) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "ref"), "-i", str(tmp_path / "hyp"), "-l", "en-zh"]
    printed = json.loads(subprocess.run([*command, "-w", "6"], capture_output=True, text=True, check=True).stdout)
    found = scores(lines["hyp"], lines["ref"], lines["hyp"], lines["ref"], "zh")
    assert 0 < found.values["bleu"] == pytest.approx(printed["score"], abs=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("MeCab") is not None, reason="MeCab is installed")
def test_what_cannot_be_scored_is_refused_before_it_is_trained(tmp_path, monkeypatch, capsys):
    """Japanese without MeCab."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("".join(f"a line {n}\t{n} 行目です\n" for n in range(400)))
    assert COMMAND_LINE.main(["prepare", "pairs.tsv", "--pair", "en-ja", "--vocabulary", "160"]) == 0
    assert COMMAND_LINE.main(["train", "transformer-numbers", *TINY, "--data.name", "pairs-en-ja"]) == 2
    assert "pip install 'sacrebleu[ja]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------------------- hugging face


def test_exported_translators_translate_the_same(finished, run_here, tmp_path):
    transformers = pytest.importorskip("transformers")
    done = run_here("export", str(FOLDER), "--out", str(tmp_path / "out"), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "no tokenizer is exported" in done.stderr  # the run's words are not cut as FSMT's tokenizer would
    theirs = transformers.FSMTForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    assert theirs.generation_config.num_beams == 4 and theirs.generation_config.length_penalty == 0.6
    run = FinishedRun.at(finished / FOLDER, TranslationConfig)
    model = Translator(run.config.model, "golu").eval()
    run.load_evaluated_weights(model, run.config.average)
    codec = run_codec(run)
    sentences = codec.encoded([pair[0] for pair in pairs()["test"]], 128)
    greedy = dataclasses.replace(run.config.search, beam=1)
    for _, sources in SourceGroups(sentences, 1).batches():
        longest = sources.shape[1] + greedy.longer_by + 1
        found = theirs.generate(sources, attention_mask=(sources != 1).long(), num_beams=1, max_length=longest)
        ours = beam_search(model, sources, greedy)
        for row, (translation, *_) in zip(found.tolist(), ours, strict=True):
            text = row[1:][: len(translation.tokens)]
            assert text == translation.tokens


def test_fsmts_tokenizer_cuts_as_a_run_with_its_flags(tmp_path):
    pytest.importorskip("transformers")
    from golu_translate.data import codec_of
    from golu_translate.hugging_face import to_fsmt_tokenizer
    from golu_translate.pairs_folder import Cutting, prepare_pairs
    from golu_translate.parallel_text import Languages, listed

    cutting = Cutting(vocabulary=160, normalize=True, aggressive_dashes=True)
    languages = Languages("en", "de")
    prepare_pairs(listed(pairs(), {}), languages, tmp_path / "own", cutting, 1)
    codec = codec_of(tmp_path / "own" / "subwords.json", languages, cutting)
    tokenizer = to_fsmt_tokenizer(codec, cutting, languages, 128)
    for source, _ in pairs()["test"]:
        assert tokenizer(source)["input_ids"] == codec.encoded([source], 128)[0].tolist()


def test_a_run_starts_from_exported_weights(finished, run_here, tmp_path):
    pytest.importorskip("transformers")
    run_here("export", str(FOLDER), "--out", str(tmp_path / "out"), cwd=finished)
    flags = ("--init-from", str(tmp_path / "out"), "--output-dir", "from", "--optim.lr", "1e-9")
    done = run_here("train", "transformer-numbers", *TINY[8:], *flags, cwd=finished)  # without the model's sizes
    assert done.returncode == 0, done.stderr
    first = json.loads((finished / FOLDER / "result.json").read_text())
    second = json.loads((finished / "from" / FOLDER.relative_to("runs") / "result.json").read_text())
    assert second["metrics"]["loss"] == pytest.approx(first["metrics"]["loss"], rel=1e-4)
    assert second["parameters"] == first["parameters"]
