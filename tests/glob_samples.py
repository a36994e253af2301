"""Patterns of `dynlib_exclude` and paths, among them those where translations of globs are apt to differ."""

from __future__ import annotations

_PATTERNS = r"""
    * ** **/* *.so *.so* PIL/**/libpng16.* PIL/** triton/** **/triton/**/*.so a/**/**/b a/*/b .libs/* */.hidden
    ?.so lib[ab]?.so lib[!a].so lib[!a]x [a-c]x [c-a]x [!c-a]x []x] [!]x] [x x] [a-]x [-a]x [--0]x [!a-c-e] [a-b-d]x
    [^a]x [[a]x a.b a+b (a|b) [&~|] \x [\]x / /a a/ a//b *** a**b **a/b a?b {a,b} $ ~
"""
PATTERNS = (*_PATTERNS.split(), "", "a b", "a\nb")

_PATHS = r"""
    a b c d e ab aab ax bx cx dx -x ]x [x ^x x x] 0x .x a.b aXb a+b a|b (a|b) & | ~ $ \x {a,b} lib.so liba1.so
    libb.so libc.so lib/x .so x.so x.so.1 a/b xa/b a/c/b a/c/d/b a/.hidden .hidden .libs/x s/.libs/x.so PIL/libpng16.so
    s/PIL/a/b/libpng16.so.1 s/PIL/libpng15.so s/triton/a/b.so s/mytriton/b.so triton a/b/c größe/b.so
"""
PATHS = (*_PATHS.split(), "a b", "a\nb", "x\n")
