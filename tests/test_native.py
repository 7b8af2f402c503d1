"""Compiled sources are kept between runs, under a key of source, compiler, its version and flags."""

import shutil

import pytest

from metalib.compilation import native


@pytest.fixture(name="compiler")
def _compiler():
    cxx = native.compiler()
    if cxx is None:
        pytest.skip(native.NO_COMPILER)
    return cxx


def answer(source, folder, cxx, flags=()):
    library = native.load(source, folder, cxx, flags)
    return None if library is None else library.answer()


def kept(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.so")}


def test_each_set_of_flags_has_its_library_and_keeps_it(tmp_path, compiler):
    source = tmp_path / "answer.cpp"
    source.write_text('extern "C" int answer() { return ANSWER; }\n')
    assert answer(source, tmp_path, compiler, ("-DANSWER=1",)) == 1
    assert answer(source, tmp_path, compiler, ("-DANSWER=2",)) == 2
    before = kept(tmp_path)
    assert len(before) == 2
    native.load.cache_clear()  # as another process would
    assert answer(source, tmp_path, compiler, ("-DANSWER=1",)) == 1
    assert kept(tmp_path) == before


def test_another_compiler_has_its_own_library(tmp_path, compiler):
    source, other = tmp_path / "answer.cpp", tmp_path / "another-compiler"
    source.write_text('extern "C" int answer() { return 3; }\n')
    other.symlink_to(shutil.which(compiler))
    assert answer(source, tmp_path, compiler) == answer(source, tmp_path, str(other)) == 3
    assert len(kept(tmp_path)) == 2


def test_an_upgraded_compiler_builds_anew(tmp_path, compiler):
    source, upgraded = tmp_path / "answer.cpp", tmp_path / "upgraded"
    source.write_text('extern "C" int answer() { return 4; }\n')
    for version in (1, 2):
        script = f'#!/bin/sh\n[ "$1" = --version ] && echo {version} || exec {compiler} "$@"\n'
        upgraded.write_text(script)
        upgraded.chmod(0o755)
        native.load.cache_clear()
        assert answer(source, tmp_path, str(upgraded)) == 4
        assert len(kept(tmp_path)) == version


def test_what_cannot_be_built_is_none_and_leaves_nothing(tmp_path, compiler):
    source = tmp_path / "broken.cpp"
    source.write_text("this is no C++\n")
    assert answer(source, tmp_path, compiler) is None
    assert list(tmp_path.iterdir()) == [source]


def test_a_folder_that_cannot_be_made_is_none(tmp_path, compiler):
    source = tmp_path / "answer.cpp"
    source.write_text('extern "C" int answer() { return 1; }\n')
    assert answer(source, source / "programs", compiler) is None
