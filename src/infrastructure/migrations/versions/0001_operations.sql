-- Operations: what people and schedules changed. Whoever calls these functions: who, what, why and
-- when are written once; only the process that began an operation says how far it is; an outcome is
-- final.

CREATE TABLE kratos_sync.operations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation text NOT NULL CHECK (char_length(operation) BETWEEN 1 AND 100),
    by text NOT NULL CHECK (char_length(by) BETWEEN 1 AND 200),
    role text NOT NULL,
    how text NOT NULL CHECK (how IN ('cli', 'console', 'schedule')),
    reason text CHECK (char_length(reason) <= 1000),
    subject uuid,
    consumer text,
    scope jsonb NOT NULL CHECK (octet_length(scope::text) <= 4000),
    resumes bigint,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    runner uuid NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text NOT NULL DEFAULT 'running'
        CHECK (outcome IN ('running', 'completed', 'failed', 'cancelled', 'interrupted')),
    done bigint NOT NULL DEFAULT 0,
    total bigint,
    result jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(result::text) <= 4000),
    cancel_requested_by text CHECK (char_length(cancel_requested_by) BETWEEN 1 AND 200),
    cancel_requested_at timestamptz,
    CHECK ((ended_at IS NULL) = (outcome = 'running'))
) WITH (fillfactor = 80);
-- An operation is resumed once; what resumed it may be resumed in turn.
CREATE UNIQUE INDEX operations_resumes ON kratos_sync.operations (resumes)
    WHERE resumes IS NOT NULL;
CREATE INDEX operations_running ON kratos_sync.operations (id) WHERE ended_at IS NULL;
COMMENT ON TABLE kratos_sync.operations IS 'What people and schedules changed: written by functions only; what was recorded does not change';
COMMENT ON COLUMN kratos_sync.operations.by IS 'Who requested it, as they said';
COMMENT ON COLUMN kratos_sync.operations.role IS 'The role that recorded it, as PostgreSQL says';
COMMENT ON COLUMN kratos_sync.operations.subject IS 'The identity, where one is meant; kept after an erasure, as in erasures';
COMMENT ON COLUMN kratos_sync.operations.scope IS 'What is meant, without personal data';
COMMENT ON COLUMN kratos_sync.operations.runner IS 'A secret of the process that carries it out: nobody else ends it';
COMMENT ON COLUMN kratos_sync.operations.seen_at IS 'When its process last wrote: shows one that died';

-- For readers: without the runner. An operation whose process has not written for long is dead.
CREATE VIEW kratos_sync.audit AS
SELECT id, operation, by, role, how, reason, subject, consumer, scope, resumes, started_at, seen_at,
       ended_at,
       CASE WHEN ended_at IS NOT NULL
                 OR seen_at BETWEEN clock_timestamp() - interval '30 s' AND clock_timestamp()
            THEN outcome ELSE 'interrupted' END AS outcome,
       done, total, result, cancel_requested_by, cancel_requested_at
FROM kratos_sync.operations;

-- It holds for the owner too.
CREATE FUNCTION kratos_sync.keep_operations() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF current_setting('kratos_sync.removes_operations', true) IS DISTINCT FROM 'yes' THEN
            RAISE EXCEPTION 'an operation is not deleted' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF OLD.ended_at IS NOT NULL
       OR (NEW.id, NEW.operation, NEW."by", NEW.role, NEW.how, NEW.reason, NEW.subject, NEW.consumer,
           NEW.scope, NEW.resumes, NEW.started_at, NEW.runner)
          IS DISTINCT FROM
          (OLD.id, OLD.operation, OLD."by", OLD.role, OLD.how, OLD.reason, OLD.subject, OLD.consumer,
           OLD.scope, OLD.resumes, OLD.started_at, OLD.runner)
       OR OLD.cancel_requested_at IS NOT NULL
          AND (NEW.cancel_requested_at, NEW.cancel_requested_by)
              IS DISTINCT FROM (OLD.cancel_requested_at, OLD.cancel_requested_by) THEN
        RAISE EXCEPTION 'what is recorded of an operation is not changed'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.keep_operations FROM PUBLIC;
CREATE TRIGGER keep_operations BEFORE UPDATE OR DELETE ON kratos_sync.operations
    FOR EACH ROW EXECUTE FUNCTION kratos_sync.keep_operations();

CREATE FUNCTION kratos_sync.begin_operation(
    operation text, requested_by text, how text, reason text, subject uuid, consumer text,
    scope jsonb, total bigint, runner uuid, resumed bigint
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    begun bigint;
BEGIN
    IF resumed IS NOT NULL THEN
        -- As the view has it: its process is dead, or finds out that it is as good as dead.
        UPDATE kratos_sync.operations SET outcome = 'interrupted', ended_at = clock_timestamp()
        WHERE id = resumed AND ended_at IS NULL
          AND NOT seen_at BETWEEN clock_timestamp() - interval '30 s' AND clock_timestamp();
        PERFORM FROM kratos_sync.operations
        WHERE id = resumed AND outcome IN ('failed', 'cancelled', 'interrupted');
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO kratos_sync.operations
           (operation, by, role, how, reason, subject, consumer, scope, total, runner, resumes)
    VALUES (operation, requested_by, session_user, how, reason, subject, consumer, scope, total,
            runner, resumed)
    ON CONFLICT (resumes) WHERE resumes IS NOT NULL DO NOTHING
    RETURNING id INTO begun;
    RETURN begun;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.begin_operation FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.begin_operation IS 'Record an operation that begins; NULL where it cannot resume the other';

CREATE FUNCTION kratos_sync.note_operation(
    its_id bigint, its_runner uuid, now_done bigint, now_total bigint, now_result jsonb,
    now_outcome text
) RETURNS TABLE (cancelled_by text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE kratos_sync.operations
    SET seen_at = clock_timestamp(), done = now_done, total = now_total, result = now_result,
        outcome = now_outcome,
        ended_at = CASE WHEN now_outcome <> 'running' THEN clock_timestamp() END
    WHERE id = its_id AND runner = its_runner AND ended_at IS NULL
    RETURNING cancel_requested_by
$$;
REVOKE ALL ON FUNCTION kratos_sync.note_operation FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.note_operation IS 'Record how far one''s own operation is, or its outcome; no row where it has ended';

CREATE FUNCTION kratos_sync.cancel_operation(its_id bigint, requested_by text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE kratos_sync.operations
    SET cancel_requested_by = requested_by, cancel_requested_at = clock_timestamp()
    WHERE id = its_id AND ended_at IS NULL AND cancel_requested_at IS NULL;
    RETURN FOUND;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.cancel_operation FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.cancel_operation IS 'Ask an operation to stop at its next step; false where it has ended or was asked';

CREATE FUNCTION kratos_sync.purge_operations(before timestamptz, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    removed bigint;
BEGIN
    before := least(before, clock_timestamp() - interval '1 day');
    PERFORM set_config('kratos_sync.removes_operations', 'yes', true);
    DELETE FROM kratos_sync.operations WHERE id IN (
        SELECT id FROM kratos_sync.operations WHERE seen_at < before ORDER BY id LIMIT most);
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM set_config('kratos_sync.removes_operations', 'no', true);
    RETURN removed;
END $$;
REVOKE ALL ON FUNCTION kratos_sync.purge_operations FROM PUBLIC;
COMMENT ON FUNCTION kratos_sync.purge_operations IS 'Remove operations that ended, or died, longer ago';
