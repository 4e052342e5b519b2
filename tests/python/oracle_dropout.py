"""Which pairs dropout keeps, by the definition: Philox4x32-10 (Salmon et al. 2011) in NumPy."""

import numpy as np

WORD = np.uint64(0xFFFFFFFF)


def philox(counter, key):
    """Four words of each counter, itself four arrays of words, lowest first; key: 64 bits."""
    c = [np.asarray(x, np.uint64) & WORD for x in counter]
    k = [np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)]
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (second >> np.uint64(32)) ^ c[1] ^ k[0],
            second & WORD,
            (first >> np.uint64(32)) ^ c[3] ^ k[1],
            first & WORD,
        ]
        k = [(k[0] + np.uint64(0x9E3779B9)) & WORD, (k[1] + np.uint64(0xBB67AE85)) & WORD]
    return c


def keep(shape, dropout_p, seed, dropout_offset=(0, 0, 0, 0)):
    """(B, H, Sq, Sk) of bool."""
    batch, head, row, column = np.meshgrid(
        *(np.arange(n) + at for n, at in zip(shape, dropout_offset, strict=True)), indexing="ij"
    )
    words = philox((column // 4, row, head, batch), seed % 2**64)
    word = np.choose(column % 4, words)
    return word >= int(dropout_p * 2**32)
