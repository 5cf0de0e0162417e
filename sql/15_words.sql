-- Words: how a text is cut into what the lexical leg counts and looks up, the same for rows and for queries.
--
--     text -> plain_text: one form of every character, small letters, C++ and the like spelt out
--          -> words_apart: only words and blanks, runs of Chinese, Thai and so on in pairs of characters
--          -> to_tsvector of the language: stems, with their places
--          +  unplaced_words, unstemmed_words: foo.png as a whole; words as they stand, =words
--
-- Nothing depends on the locale: characters are told apart by their code points, and the server's parser is given
-- nothing but words. Literals with backslashes are in dollar quotes, so that no setting changes what they mean.
-- What changes here is a new words_version: rows of an older one are made anew by neural.refresh_words.

CREATE OR REPLACE FUNCTION neural.words_version()
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 2;

COMMENT ON FUNCTION neural.words_version() IS
'The version of the words that neural.lexemes makes; neural.spaces.words_version has that of the words of a space';

CREATE OR REPLACE FUNCTION neural.knows_unicode()
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.getdatabaseencoding() = 'UTF8';

COMMENT ON FUNCTION neural.knows_unicode() IS
'Whether the characters of this database are told apart by Unicode; in any other encoding only ASCII is';

CREATE OR REPLACE FUNCTION neural.between_words()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    -- Unicode's classes P, S, Z and C, as far as they outlive NFKC
    SELECT $r$\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007f$r$ || CASE WHEN neural.knows_unicode() THEN
        $r$\u0080-\u00bf\u00d7\u00f7\u02c2-\u02c5\u02d2-\u02eb\u02ed\u02ef-\u02ff\u0375\u03f6\u0482$r$ ||
        $r$\u055a-\u055f\u0589-\u058f\u05be\u05c0\u05c3\u05c6\u05f3-\u060f\u061b-\u061f\u066a-\u066d\u06d4$r$ ||
        $r$\u06dd-\u06de\u06e9\u06fd-\u06fe\u0700-\u070f\u07f6-\u07f9\u07fe-\u07ff\u0830-\u083e\u085e\u0888$r$ ||
        $r$\u0890-\u0891\u08e2\u0964-\u0965\u0970\u09f2-\u09f3\u09fa-\u09fb\u09fd\u0a76\u0af0-\u0af1\u0b70$r$ ||
        $r$\u0bf3-\u0bfa\u0c77\u0c7f\u0c84\u0d4f\u0d79\u0df4\u0e3f\u0e4f\u0e5a-\u0e5b\u0f01-\u0f17\u0f1a-\u0f1f$r$ ||
        $r$\u0f34\u0f36\u0f38\u0f3a-\u0f3d\u0f85\u0fbe-\u0fc5\u0fc7-\u0fda\u104a-\u104f\u109e-\u109f\u10fb$r$ ||
        $r$\u1360-\u1368\u1390-\u1399\u1400\u166d-\u166e\u1680\u169b-\u169c\u16eb-\u16ed\u1735-\u1736$r$ ||
        $r$\u17d4-\u17d6\u17d8-\u17db\u1800-\u180a\u180e\u1940-\u1945\u19de-\u19ff\u1a1e-\u1a1f\u1aa0-\u1aa6$r$ ||
        $r$\u1aa8-\u1aad\u1b5a-\u1b6a\u1b74-\u1b7e\u1bfc-\u1bff\u1c3b-\u1c3f\u1c7e-\u1c7f\u1cc0-\u1cc7\u1cd3$r$ ||
        $r$\u200b-\u20c0\u2104-\u212e\u213a-\u214d\u214f\u218a-\u244a\u2500-\u2775\u2794-\u2bff\u2ce5-\u2cea$r$ ||
        $r$\u2cf9-\u2cfc\u2cfe-\u2cff\u2d70\u2e00-\u2e2e\u2e30-\u3004\u3008-\u3020\u3030\u3037\u303d-\u303f$r$ ||
        $r$\u30a0\u30fb\u3190-\u3191\u31c0-\u31e3\u327f\u4dc0-\u4dff\ua490-\ua4c6\ua4fe-\ua4ff\ua60d-\ua60f$r$ ||
        $r$\ua673\ua67e\ua6f2-\ua716\ua720-\ua721\ua789-\ua78a\ua828-\ua82b\ua836-\ua839\ua874-\ua877$r$ ||
        $r$\ua8ce-\ua8cf\ua8f8-\ua8fa\ua8fc\ua92e-\ua92f\ua95f\ua9c1-\ua9cd\ua9de-\ua9df\uaa5c-\uaa5f$r$ ||
        $r$\uaa77-\uaa79\uaade-\uaadf\uaaf0-\uaaf1\uab5b\uab6a-\uab6b\uabeb\ud800-\uf8ff\ufbb2-\ufdff$r$ ||
        $r$\ufe45-\ufe46\ufeff-\ufffd$r$ ||
        $r$\U00010100-\U00010102\U0001d000-\U0001d164\U0001d16a-\U0001d36f\U0001f000-\U0001fbca\U000e0001-\U0010ffff$r$
    ELSE '' END;
END;

COMMENT ON FUNCTION neural.between_words() IS
'What stands between words, as the inside of a bracket of a regular expression';

CREATE OR REPLACE FUNCTION neural.without_blanks()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    -- Thai, Lao, Myanmar, Khmer, Tai, Yi; Han, Kana, Bopomofo; Hangul. Digits and punctuation of these are not in it
    SELECT $r$\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1780-\u17d3$r$ ||
           $r$\u17d7\u17dc\u17dd\u1950-\u19cf\u1a20-\u1a7f\ua000-\ua48c\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaadd$r$ ||
           $r$\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u309f\u30a1-\u30fa\u30fc-\u318e$r$ ||
           $r$\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff$r$ ||
           $r$\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb$r$;
END;

COMMENT ON FUNCTION neural.without_blanks() IS
'The characters of scripts that put no blanks between words, and of Korean, as the inside of a bracket of a regular expression';

CREATE OR REPLACE FUNCTION neural.letter_cases(OUT capital text, OUT small text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(chr(c), '' ORDER BY c), string_agg(chr(c + r.distance), '' ORDER BY c)
      FROM (VALUES (192, 214, 1, 32), (216, 222, 1, 32), (256, 302, 2, 1), (306, 310, 2, 1), (313, 327, 2, 1), (330, 374, 2, 1),
                   (376, 376, 1, -121), (377, 381, 2, 1), (478, 494, 2, 1), (504, 542, 2, 1), (550, 562, 2, 1),
                   (902, 902, 1, 38), (904, 906, 1, 37), (908, 908, 1, 64), (910, 911, 1, 63), (913, 929, 1, 32),
                   (931, 939, 1, 32), (1024, 1039, 1, 80), (1040, 1071, 1, 32), (1120, 1152, 2, 1), (1162, 1214, 2, 1),
                   (1217, 1229, 2, 1), (1232, 1326, 2, 1), (1329, 1366, 1, 48), (7680, 7828, 2, 1), (7840, 7934, 2, 1)
           ) AS r(first, last, step, distance), generate_series(r.first, r.last, r.step) AS c
$$;

COMMENT ON FUNCTION neural.letter_cases() IS
'Capital letters and their small ones, place by place, for databases whose locale knows those of ASCII alone';

CREATE OR REPLACE FUNCTION neural.small_letters(content text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    content := lower(content COLLATE "C");  -- an I has its dot in every locale
    IF octet_length(content) = char_length(content) THEN
        RETURN content;
    ELSIF NOT neural.knows_unicode() THEN
        RETURN lower(content);
    END IF;
    content := lower(replace(content, chr(304), 'i'));
    IF lower(chr(201) || chr(1040)) <> chr(233) || chr(1072) THEN
        content := translate(content, (neural.letter_cases()).capital, (neural.letter_cases()).small);
    END IF;
    RETURN replace(content, chr(962), chr(963));  -- some locales make the sigma at the end of a word another one
END
$$;

COMMENT ON FUNCTION neural.small_letters(text) IS 'A text in small letters, the same in every locale';

CREATE OR REPLACE FUNCTION neural.plain_text(language text, content text)
RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gap constant text := neural.between_words();
BEGIN
    IF octet_length(content) > char_length(content) AND neural.knows_unicode() THEN
        -- what has no width: soft hyphens, joiners, marks of direction, byte order marks, variants of a character
        content := regexp_replace(content,
            $r$[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]$r$, '', 'g');
        content := replace(normalize(content, NFKC), chr(9839), '#');
        IF language = 'turkish' THEN
            content := replace(content, 'I', chr(305));
        END IF;
    END IF;
    content := neural.small_letters(content);
    IF position('<' IN content) > 0 THEN
        content := regexp_replace(content,
            $r$</?(?:a|abbr|article|aside|b|blockquote|body|br|button|code|dd|div|dl|dt|em|figure|figcaption|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|s|section|select|small|span|strong|sub|sup|svg|table|tbody|td|th|thead|tr|u|ul|video)(?:\s+[a-z][a-z0-9:-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))*\s*/?>$r$,
            ' ', 'g');
    END IF;
    IF position('&' IN content) > 0 THEN
        content := regexp_replace(content,
            '&(?:amp|lt|gt|quot|apos|nbsp|ndash|mdash|hellip|[lr][sd]quo|copy|reg|trade|bull|middot|shy|#[0-9]{1,7}|#x[0-9a-f]{1,6});',
            ' ', 'g');
    END IF;
    IF position('+' IN content) > 0 THEN  -- C++, g++, A+: one letter with its signs is a word of its own
        content := regexp_replace(content, format($r$(^|[%s])([a-z])\+\+(?!\+)$r$, gap), $r$\1\2plusplus $r$, 'g');
        content := regexp_replace(content, format($r$(^|[%s])([a-z])\+(?=[%s]|$)$r$, gap, gap), $r$\1\2plus $r$, 'g');
    END IF;
    IF position('#' IN content) > 0 THEN
        content := regexp_replace(content, format($r$(^|[%s])([a-z])#(?=[%s]|$)$r$, gap, gap), $r$\1\2sharp $r$, 'g');
    END IF;
    IF position('.net' IN content) > 0 THEN
        content := regexp_replace(content, format($r$(^|[%s])\.net(?=[%s]|$)$r$, gap, gap), $r$\1dotnet $r$, 'g');
    END IF;
    RETURN content;
END
$$;

COMMENT ON FUNCTION neural.plain_text(text, text) IS
'A text in one form: NFKC, nothing without a width, small letters, no tags, and C++, C#, .NET as cplusplus, csharp, dotnet';

CREATE OR REPLACE FUNCTION neural.words_apart(plain text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run constant text := neural.without_blanks();
    cut constant text := chr(CASE WHEN neural.knows_unicode() THEN 57344 ELSE 1 END);  -- is between words, so never here
BEGIN
    plain := regexp_replace(plain, format('[%s]+', neural.between_words()), ' ', 'g');
    IF octet_length(plain) > char_length(plain) AND neural.knows_unicode() AND plain ~ format('[%s]', run) THEN
        plain := regexp_replace(plain, format('([%s])', run), format($r$\1%s\1$r$, cut), 'g');  -- a run of a, b, c is a|ab|bc|c now
        plain := regexp_replace(plain, format('(^|[^%s%s])[%s]%s', run, cut, run, cut), $r$\1 $r$, 'g');
        plain := regexp_replace(plain, format('%s[%s]($|[^%s%s])', cut, run, run, cut), $r$ \1$r$, 'g');
        plain := translate(plain, cut, ' ');
        -- signs that begin no word, and of which not every locale says that they are letters
        plain := regexp_replace(plain,
            $r$(^| )[\u0e3a\u0e47-\u0e4e\u0eba\u0ec8-\u0ece\u1037\u1039\u103a\u17c6-\u17d3\u17dd\u1a60\u1a75-\u1a7c\u1a7f]+$r$, $r$\1$r$, 'g');
    END IF;
    IF plain ~ '[^ ]{65}' THEN  -- a word that is longer is several
        plain := regexp_replace(plain, '([^ ]{64})(?=[^ ])', $r$\1 $r$, 'g');
    END IF;
    RETURN btrim(plain);
END
$$;

COMMENT ON FUNCTION neural.words_apart(text) IS
'The words of a plain text in their order, with a blank between: the parts of foo.png and client/server, of a run of characters
without blanks its overlapping pairs, of a word of more than 64 letters its pieces';

CREATE OR REPLACE FUNCTION neural.compounds(plain text)
RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gap constant text := neural.between_words();
    word constant text := format('[^%s%s]', gap, CASE WHEN neural.knows_unicode() THEN neural.without_blanks() ELSE '' END);
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT m[1]
          FROM regexp_matches(plain, format($r$%1$s+(?:(?:[-./_\\@:&~+#?=%%]{1,3}%1$s+)+(?:[+]{1,2}|#)?|(?:[+]{1,2}|#)(?=[%2$s]|$))$r$,
                                            word, gap), 'g') m
         WHERE char_length(m[1]) <= 200);
END
$$;

COMMENT ON FUNCTION neural.compounds(text) IS
'What of a plain text is several words in one, as foo.png, long-term, jane.roe@example.org, 555-1234, notepad++, each as a whole';

CREATE OR REPLACE FUNCTION neural.configuration(language text)
RETURNS regconfig
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT c.oid::regconfig FROM pg_ts_config c WHERE c.cfgname = language
                      ORDER BY c.cfgnamespace <> 'pg_catalog'::regnamespace, c.oid LIMIT 1), language::regconfig)
$$;

COMMENT ON FUNCTION neural.configuration(text) IS
'The text search configuration of a name, the server''s own before others, whatever the search_path';

CREATE OR REPLACE FUNCTION neural.query_words(language text, content text)
RETURNS tsvector
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plain text := neural.plain_text(language, content);
BEGIN
    RETURN to_tsvector(neural.configuration(language), neural.words_apart(plain)) || array_to_tsvector(neural.compounds(plain));
END
$$;

COMMENT ON FUNCTION neural.query_words(text, text) IS
'The words that a query asks for: stems with their places, and compounds as a whole';

CREATE OR REPLACE FUNCTION neural.unplaced_words(plain text)
RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF octet_length(plain) > char_length(plain) AND neural.knows_unicode() THEN
        RETURN neural.compounds(plain)
            || ARRAY(SELECT DISTINCT m[1] FROM regexp_matches(plain, format('[%s]', neural.without_blanks()), 'g') m);
    END IF;
    RETURN neural.compounds(plain);
END
$$;

COMMENT ON FUNCTION neural.unplaced_words(text) IS
'What a plain text is also found by, without a place: compounds as a whole, single characters of runs without blanks';

CREATE OR REPLACE FUNCTION neural.unstemmed_words(language text, stems tsvector, words text)
RETURNS text[]
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT '=' || w
          FROM unnest(tsvector_to_array(ts_delete(to_tsvector('pg_catalog.simple', words), tsvector_to_array(stems)))) w
         WHERE to_tsvector((SELECT neural.configuration(language)), w) <> ''::tsvector)
$$;

COMMENT ON FUNCTION neural.unstemmed_words(text, tsvector, text) IS
'With = before it, each word that is not its own stem, and no stop word: for queries like univers*';

CREATE OR REPLACE FUNCTION neural.lexemes(language text, title text, content text)
RETURNS tsvector
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    heading text := neural.plain_text(language, coalesce(title, ''));
    plain text := neural.plain_text(language, coalesce(content, ''));
    words text := neural.words_apart(plain);
    lexemes tsvector := to_tsvector(neural.configuration(language), words);
BEGIN
    IF heading <> '' THEN
        plain := heading || chr(10) || plain;
        heading := neural.words_apart(heading);
        words := heading || ' ' || words;
        lexemes := setweight(to_tsvector(neural.configuration(language), heading), 'A') || lexemes;
    END IF;
    RETURN lexemes || array_to_tsvector(
        neural.unplaced_words(plain) || neural.unstemmed_words(language, lexemes, words));
END
$$;

COMMENT ON FUNCTION neural.lexemes(text, text, text) IS
'The words of a row, those of its title marked A; for rows of at most 16,000 words (neural.row_words takes any)';
