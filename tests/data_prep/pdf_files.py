"""PDFs made by hand, so that the tests need no library to write them."""

import zlib


def pdf(pages: list[list[str]], size: int = 12, extra_trailer: str = "", compress: bool = False) -> bytes:
    """A PDF with lines of Helvetica; an empty line leaves space. `extra_trailer` goes into the trailer."""
    drawings = []
    for lines in pages:
        text = f"BT /F1 {size} Tf {1.2 * size:.1f} TL 60 780 Td\n"
        for line in lines:
            text += f"({line.translate(str.maketrans({'(': '[', ')': ']'}))}) Tj T*\n"
        drawings.append(text + "ET")
    return drawn(drawings, "Helvetica", extra_trailer, compress)


def drawn(
    pages: list[str], font: str = "Times-Roman", extra_trailer: str = "", compress: bool = False
) -> bytes:
    """A PDF of pages in the format's own drawing operators; the font is /F1."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 "
                            b"/BaseFont /%s /Encoding /WinAnsiEncoding >>" % font.encode()]  # fmt: skip
    kids = []
    for page in pages:
        data, extra = page.encode("cp1252"), b""
        if compress:
            data, extra = zlib.compress(data, 9), b" /Filter /FlateDecode"
        objects.append(b"<< /Length %d%s >>\nstream\n" % (len(data), extra) + data + b"\nendstream")
        content = len(objects)
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
                       b"/Resources << /Font << /F1 3 0 R >> >> >>" % content)  # fmt: skip
        kids.append(len(objects))
    listed = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), listed)
    return _assemble(objects, extra_trailer)


def _assemble(objects: list[bytes], extra_trailer: str) -> bytes:
    out, places = b"%PDF-1.4\n", []
    for number, data in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + data + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\n" % (len(objects) + 1, extra_trailer.encode())
    return out + b"startxref\n%d\n%%%%EOF\n" % start


def encrypted() -> bytes:
    """A PDF that asks for a password (standard handler, revision 2)."""
    owner, user = "41" * 32, "42" * 32
    handler = f"<< /Filter /Standard /V 1 /R 2 /O <{owner}> /U <{user}> /P -44 >>"
    return pdf([["secret"]], extra_trailer=f"/ID [<{'43' * 16}> <{'43' * 16}>] /Encrypt {handler}")
