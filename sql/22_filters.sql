-- Whether statements can be read: each is opened as a cursor, whose rows nobody fetches. A text that a caller gave stands
-- in one between parentheses and in another between brackets: what closes the one, and opens it again, is no syntax in
-- the other. A cursor is of one statement, and the function is STABLE: nothing that a text smuggles in can write.
-- With the rights, the types and the settings of the caller, since so will be the statement that the text is for.
CREATE OR REPLACE FUNCTION neural.unreadable(statements text[]) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER AS $$
DECLARE
    statement text;
    opened refcursor;
BEGIN
    FOREACH statement IN ARRAY statements LOOP
        OPEN opened FOR EXECUTE statement;
        CLOSE opened;
    END LOOP;
    RETURN NULL;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE;
    WHEN invalid_cursor_definition THEN
        RETURN 'it is more than one expression';
    WHEN syntax_error_or_access_rule_violation OR data_exception OR feature_not_supported OR invalid_schema_name
         OR cardinality_violation OR program_limit_exceeded THEN
        RETURN SQLERRM;
END $$;
COMMENT ON FUNCTION neural.unreadable(text[]) IS
    'What PostgreSQL says of the first of these statements that it cannot read; NULL if it can read all. None is executed.';
