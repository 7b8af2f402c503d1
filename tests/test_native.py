"""Compiled sources are kept between runs, each under a key of all that makes it."""

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


def test_other_flags_make_another_library(tmp_path, compiler):
    source = tmp_path / "answer.cpp"
    source.write_text('extern "C" int answer() { return ANSWER; }\n')
    assert answer(source, tmp_path, compiler, ("-DANSWER=1",)) == 1
    assert answer(source, tmp_path, compiler, ("-DANSWER=2",)) == 2
    kept = sorted(tmp_path.glob("*.so"))
    native.load.cache_clear()  # as another process would
    assert answer(source, tmp_path, compiler, ("-DANSWER=1",)) == 1
    assert sorted(tmp_path.glob("*.so")) == kept


def test_what_cannot_be_built_is_none_and_leaves_nothing(tmp_path, compiler):
    source = tmp_path / "broken.cpp"
    source.write_text("this is no C++\n")
    assert answer(source, tmp_path, compiler) is None
    assert list(tmp_path.iterdir()) == [source]
